"""A TIFF is read correctly or refused: pages, planes, pyramids, unusual numbers."""

import importlib.util
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from small_encoders import picture

from pathencoder.errors import ImageError
from pathencoder.formats import tiff
from pathencoder.images import decode_image, open_image

IMAGE = picture(height=48, width=64)


def saved(image=None, **how):
    buffer = io.BytesIO()
    (image or Image.fromarray(IMAGE)).save(buffer, "TIFF", **how)
    return buffer.getvalue()


def with_tag(image, tag, value, kind=3):
    """The bytes of a TIFF with one more tag (kind 3: integer, 2: text)."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags.tagtype[tag] = kind
    tags[tag] = value
    return saved(image, tiffinfo=tags)


def grey(scale=257, dtype=np.uint16):
    return Image.fromarray((IMAGE[..., 0].astype(np.uint32) * scale).astype(dtype))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_ordinary_files_are_read_as_pillow_reads_them(mode, compression):
    image = Image.fromarray(IMAGE).convert(mode)
    data = saved(image, compression=compression)
    if mode == "YCbCr" and compression is None and Image.open(io.BytesIO(data)).mode == "RGB":
        pytest.skip("this Pillow cannot read the uncompressed YCbCr that it writes")
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode_image(data) - expected).max() <= (2 if mode == "YCbCr" else 0)


def test_several_pages_are_refused(tmp_path):
    image = Image.fromarray(IMAGE)
    (tmp_path / "stack.tif").write_bytes(saved(image, save_all=True, append_images=[image, image]))
    with pytest.raises(
        ImageError,
        match=r"stack\.tif: it holds 3 pages or planes \(64 x 48 px\): save the one you need",
    ):
        open_image(tmp_path / "stack.tif")
    with Image.open(tmp_path / "stack.tif") as opened:
        with pytest.raises(ImageError, match="holds 3 pages"):
            open_image(opened)
        opened.seek(1)  # a page that was chosen
        np.testing.assert_array_equal(open_image(opened), IMAGE)


@pytest.mark.parametrize(
    "description",
    [
        "ImageJ=1.53t\nimages=3\nslices=3\n",
        json.dumps({"shape": [3, 48, 64]}),
        json.dumps({"shape": [3, 48, 64], "truncated": True}),
    ],
)
def test_stacks_in_one_page_are_refused_by_their_description(description):
    with pytest.raises(ImageError, match="holds 3 pages or planes"):
        decode_image(with_tag(Image.fromarray(IMAGE[..., 0]), 270, description, 2))


@pytest.mark.parametrize(
    "description",
    ["ImageJ=1.53t\nimages=1\n", json.dumps({"shape": [48, 64]}), '{"shape": [[', "a tissue"],
)
def test_other_descriptions_are_one_image(description):
    assert decode_image(with_tag(Image.fromarray(IMAGE[..., 0]), 270, description, 2)).shape == (
        48,
        64,
        3,
    )


def test_a_preview_beside_the_image_is_fine():
    image = Image.fromarray(IMAGE)
    kinds = {254: 0}  # NewSubfileType of both pages: not a reduced copy
    two = saved(image, save_all=True, append_images=[image.resize((16, 12))], tiffinfo=kinds)
    with pytest.raises(ImageError, match="holds 2 pages"):
        decode_image(two)
    entry = b"\xfe\0\x04\0\x01\0\0\0"
    last = two.rindex(entry) + len(entry)
    np.testing.assert_array_equal(decode_image(two[:last] + b"\x01" + two[last + 1 :]), IMAGE)


@pytest.mark.parametrize(
    ("scale", "words"), [(16, "12 bits stored in more"), (1, "8 bits stored in more")]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_fewer_bits_in_more_are_refused_unless_stated(scale, words, dtype):
    image = grey(scale, dtype)
    with pytest.raises(ImageError, match=rf"{words}.*astype\('uint8'\)"):
        decode_image(saved(image))
    if scale == 16:
        top = int(np.asarray(image).max())
        with pytest.raises(ImageError, match=words):  # a statistic, not a range
            decode_image(with_tag(image, 281, top))
    if dtype is np.uint16:
        found = decode_image(with_tag(grey(16), 281, 4095))
        assert np.abs(found[..., 0] - IMAGE[..., 0].astype(float) * 16 / 4095 * 255).max() <= 0.51


def test_values_above_the_stated_range_are_refused():
    with pytest.raises(ImageError, match=r"the file says 0 to 255"):
        decode_image(with_tag(grey(257), 281, 255))


def test_floats_are_scaled_by_the_stated_range():
    image = Image.fromarray(IMAGE[..., 0].astype(np.float32))
    with pytest.raises(ImageError, match=r"0\.\.255 stored as float"):
        decode_image(saved(image))
    np.testing.assert_array_equal(decode_image(with_tag(image, 341, 255))[..., 0], IMAGE[..., 0])


def patched(data, tag, old, new):
    """The bytes of a little-endian TIFF with another value of a short tag."""
    entry = tag.to_bytes(2, "little") + b"\x03\0\x01\0\0\0"
    at = data.index(entry) + len(entry)
    assert data[at] == old
    return data[:at] + bytes([new]) + data[at + 1 :]


@pytest.mark.parametrize("colour", [8, 9])
def test_lab_colours_are_refused(colour):
    with pytest.raises(ImageError, match=r"L\*a\*b\*"):
        decode_image(patched(saved(), 262, 2, colour))


def test_uncompressed_subsampled_ycbcr_is_refused():
    with pytest.raises(ImageError, match="uncompressed YCbCr with subsampled colours"):
        decode_image(with_tag(Image.fromarray(IMAGE).convert("YCbCr"), 530, (2, 2)))


def test_channels_without_colours_are_refused():
    two = saved(Image.fromarray(np.dstack([IMAGE[..., 0], IMAGE[..., 1]])))
    with pytest.raises(ImageError, match="2 channels without colours"):
        decode_image(patched(two, 338, 2, 0))


def test_a_fourth_channel_of_unknown_meaning_is_refused_where_it_matters():
    entry = (338).to_bytes(2, "little")
    for alpha, taken in ((255, True), (200, False)):
        data = saved(Image.fromarray(np.dstack([IMAGE, np.full((48, 64), alpha, np.uint8)])))
        at = data.index(entry + b"\x03\0")
        data = data[:at] + b"\xff\xfe" + data[at + 2 :]  # an unknown tag
        if taken:
            np.testing.assert_array_equal(decode_image(data), IMAGE)
        else:
            with pytest.raises(ImageError, match="does not say that the fourth is alpha"):
                decode_image(data)


def test_a_palette_of_8_bit_numbers_is_refused():
    image = Image.fromarray(IMAGE).quantize(16)
    data = saved(image)
    colours = np.asarray(image.getpalette(), np.uint16).reshape(-1, 3).T
    stored = np.zeros((3, 256), "<u2")
    stored[:, : colours.shape[1]] = colours * 256
    assert stored.tobytes()[:32] in data
    with pytest.raises(ImageError, match="palette holds 8-bit numbers"):
        decode_image(data.replace(stored.tobytes(), (stored // 256).astype("<u2").tobytes()))


def without(monkeypatch, *names):
    """Make packages look as if they were not installed."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_without_tifffile_the_extra_is_named(monkeypatch):
    without(monkeypatch, "tifffile")
    with pytest.raises(ImageError, match=r"16-bit min-is-white.*pip install 'pathencoder\[tiff\]'"):
        decode_image(patched(saved(grey()), 262, 1, 0))


@pytest.mark.full
@pytest.mark.skipif(
    importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs is installed"
)
def test_without_its_codecs_the_extra_is_named():
    with pytest.raises(ImageError, match=r"16-bit min-is-white.*pip install 'pathencoder\[tiff\]'"):
        decode_image(patched(saved(grey(), compression="tiff_lzw"), 262, 1, 0))


def test_damaged_numbers_of_bits_and_channels_are_refused_at_once():
    assert tiff.stated_range({258: 1 << 20}).top == 2**64 - 1
    with pytest.raises(ImageError, match="it holds 60000 channels"):
        tiff.check_colours({262: 2, 277: 60_000}, "x")


def test_too_many_channels_are_refused():
    with pytest.raises(ImageError, match="it holds 6 channels"):
        tiff.check_colours({262: 2, 277: 6, 338: (0, 0, 0)}, "x")
    with pytest.raises(ImageError, match="it holds 5 channels"):
        tiff.check_colours({262: 2, 277: 5, 338: (0, 0)}, "x")
    tiff.check_colours({262: 5, 277: 5, 338: (2,)}, "x")  # CMYK and alpha
