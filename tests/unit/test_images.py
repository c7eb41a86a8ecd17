"""Every form of an image gives the same pixels; other inputs are refused by name."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from small_encoders import picture

from pathencoder.errors import ImageError
from pathencoder.images import Item, decode_image, iterate, list_images, open_image, survey

EXAMPLES = settings(max_examples=25, deadline=None)
SIDES = st.integers(1, 24)
RGB = st.tuples(SIDES, SIDES).flatmap(lambda hw: hnp.arrays(np.uint8, (*hw, 3)))
GREY = st.tuples(SIDES, SIDES).flatmap(lambda hw: hnp.arrays(np.uint8, hw))


def loaded(images):
    return [(item.key, item.load()) for item in iterate(images)]


def png(array, mode=None):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, "PNG")
    return Image.open(buffer)


def same(found, expected):
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@EXAMPLES
@given(RGB)
def test_every_form_of_an_8_bit_image_gives_its_pixels(array):
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    item = Item(0, "x", lambda: array)
    for form in (array, Image.fromarray(array), png(array), tensor, item):
        same(open_image(form), array)
    if array.max() > 63:  # darker ones of more bits look like another range
        same(open_image(array.astype(np.uint16) * 257), array)
        for form in (
            array / 255,
            (array / 255).astype(np.float32),
            tensor / 255,
            tensor.double() / 255,
        ):
            same(open_image(form), array)


@EXAMPLES
@given(GREY)
def test_grey_is_rgb_of_equal_channels(grey):
    expected = np.stack([grey] * 3, axis=2)
    for form in (grey, grey[..., None], Image.fromarray(grey), png(grey), expected):
        same(open_image(form), expected)


@EXAMPLES
@given(RGB, st.integers(16, 255))
def test_alpha_is_composited_over_white(array, alpha):
    rgba = np.dstack([array, np.full(array.shape[:2], alpha, np.uint8)])
    expected = np.rint((array.astype(float) * alpha + 255.0 * (255 - alpha)) / 255)
    for form in (rgba, Image.fromarray(rgba), png(rgba)):
        assert np.abs(open_image(form) - expected).max() <= 0.5
    if alpha == 255:
        same(open_image(rgba), array)


@EXAMPLES
@given(st.tuples(SIDES, SIDES).flatmap(lambda hw: hnp.arrays(np.uint16, hw)))
def test_16_bits_are_scaled_by_their_range(deep):
    deep[0, 0] = max(deep[0, 0], 1 << 14)
    expected = np.repeat(np.floor(deep[..., None] / 257 + 0.5).astype(np.uint8), 3, axis=2)
    for form in (deep, png(deep), Image.fromarray(deep.astype(np.int32))):
        same(open_image(form), expected)


def test_bfloat16_and_half_tensors_are_accepted():
    tensor = torch.linspace(0, 1, 3 * 16).view(3, 4, 4)
    for dtype, slack in ((torch.bfloat16, 1), (torch.float16, 1)):
        found = open_image(tensor.to(dtype)).astype(int)
        assert np.abs(found - np.rint(tensor.permute(1, 2, 0).numpy() * 255)).max() <= slack


def test_palette_cmyk_bilevel_and_transparent_palette_are_converted():
    image = Image.fromarray(picture())
    palette = image.quantize(16)
    same(open_image(palette), np.asarray(palette.convert("RGB")))
    same(open_image(image.convert("CMYK")), np.asarray(image))
    bilevel = image.convert("1")
    same(open_image(bilevel)[..., 0], np.asarray(bilevel).astype(np.uint8) * 255)
    palette.info["transparency"] = 0
    seen_through = np.asarray(palette) == 0
    assert (open_image(palette)[seen_through] == 255).all()
    same(open_image(palette)[~seen_through], np.asarray(palette.convert("RGB"))[~seen_through])


def test_float_tiffs_are_scaled_as_0_to_1(tmp_path):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "float.tif")
    same(open_image(tmp_path / "float.tif")[..., 0], np.rint(values * 255).astype(np.uint8))
    Image.fromarray(values * 1000).save(tmp_path / "counts.tif")
    with pytest.raises(ImageError, match=r"counts\.tif.*0 to 1000"):
        open_image(tmp_path / "counts.tif")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = picture(height=16, width=40)
    turn = {
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    stored = Image.fromarray(upright).transpose(Image.Transpose[turn[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    same(open_image(tmp_path / "turned.png"), upright)
    with Image.open(tmp_path / "turned.png") as opened:
        same(open_image(opened), upright)


def test_one_pixel_is_an_image():
    same(open_image(np.full((1, 1, 3), 7, np.uint8)), np.full((1, 1, 3), 7))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"3x8x8.*channels come last"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"8x8x3.*channels come first"),
        (np.zeros((2, 2, 8, 8), np.uint8), "shape 2x8x8"),
        (np.zeros(5, np.uint8), "shape 5"),
        (np.zeros((8, 8, 2), np.uint8), "shape 8x8x2"),
        (np.zeros((8, 8, 3), np.int64), "dtype int64"),
        (np.zeros((8, 8, 3), bool), "dtype bool"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        (np.full((8, 8, 3), np.nan), "192 values are NaN"),
        (np.full((8, 8, 3), np.inf, np.float32), "192 values are NaN or infinite"),
        (torch.randn(3, 8, 8), r"outside 0..1: it looks normalised already.*uint8.*encoder\(x\)"),
        (np.linspace(0, 255, 192).reshape(8, 8, 3), r"0 to 255.*0\.\.255 stored as float"),
        (np.linspace(0, 1 / 255, 192).reshape(8, 8, 3), "scaled twice"),
        (torch.linspace(0, 1, 192).view(3, 8, 8) / 255, "scaled twice"),
        (np.linspace(0, 1.01, 192).reshape(8, 8, 3), r"0 to 1\.01"),
        (5, "int '5'"),
        (None, "a NoneType"),
        ({"a": 1}, "a dict"),
    ],
)
def test_errors_name_the_input_and_what_was_found(bad, words):
    images = [picture(), bad]
    *_, last = iterate(images)
    with pytest.raises(ImageError, match=rf"^images\[1\].*{words}"):
        last.load()


def test_a_black_image_does_not_count_as_scaled_twice():
    same(open_image(np.zeros((4, 4, 3), np.float32)), np.zeros((4, 4, 3)))


def test_a_stack_is_checked_by_its_whole_range():
    stack = torch.rand(3, 3, 8, 8)
    stack[2, 0, 0, 0] = -1.5  # of a normalised stack one image may lie inside 0..1 by chance
    for item in iterate(stack):
        with pytest.raises(ImageError, match=r"number \d of the stack.*-1\.5"):
            item.load()
    stack[2, 0, 0, 0] = float("nan")  # while one bad value leaves the others alone
    assert [item.load().shape for item in list(iterate(stack))[:2]] == [(8, 8, 3)] * 2


@pytest.fixture
def folder(tmp_path):
    for name in ("tile10.png", "tile2.PNG", "sub/a.png", ".hidden/b.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(len(name))).save(tmp_path / name, "PNG")
    return tmp_path


def test_folders_are_read_recursively_in_natural_order(folder):
    names = ["sub/a.png", "tile2.PNG", "tile10.png"]
    assert [p.relative_to(folder).as_posix() for p in list_images(folder)] == names
    items, total = survey(str(folder))
    assert total == 3
    for name, item in zip(names, items, strict=True):
        assert item.key == name
        same(item.load(), picture(len(name)))


def test_items_that_decode_themselves_are_accepted():
    item = Item("key", "region 7", lambda: picture(7))
    found = list(iterate([item, picture(1)]))
    assert [i.where for i in found] == ["region 7", "images[1]"]
    same(found[0].load(), picture(7))


def test_keys_and_counts_of_mixed_lists(folder):
    stack = np.stack([picture(1), picture(2)])
    mixed = [folder, stack, Image.fromarray(picture(3)), folder / "tile2.PNG", torch.zeros(3, 4, 4)]
    items, total = survey(mixed)
    assert total == 8
    found = list(items)
    assert [item.key for item in found] == list(range(8))
    assert found[-2].path == folder / "tile2.PNG"
    assert [item.path is None for item in found[-5:]] == [True, True, True, False, True]
    assert survey(iter(mixed))[1] is None
    np.testing.assert_array_equal(loaded(iter(mixed))[4][1], picture(2))


def test_iterators_are_advanced_only_as_far_as_asked():
    drawn = []

    def draw():
        for i in range(10):
            drawn.append(i)
            yield picture(i)

    items = iterate(draw())
    next(items)
    next(items)
    assert drawn == [0, 1]


def write(path, content):
    path.write_bytes(content)
    return path


def test_files_that_are_not_images_are_refused_by_name(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "JPEG")
    truncated = write(tmp_path / "cut.jpg", buffer.getvalue()[:-200])
    text = write(tmp_path / "text.png", b"not a picture")
    empty = write(tmp_path / "empty.tif", b"")
    for path in (truncated, text, empty, tmp_path / "missing.png"):
        with pytest.raises(ImageError, match=path.name):
            open_image(path)
        with pytest.raises(ImageError, match=rf"images\[0\] .*{path.name}"):
            next(iterate([path])).load()


def test_bytes_are_decoded_by_the_rules_of_files(tmp_path):
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        Image.fromarray(picture()).save(tmp_path / name)
        same(decode_image((tmp_path / name).read_bytes()), open_image(tmp_path / name))
    for bad in (b"", b"not a picture", (tmp_path / "a.jpg").read_bytes()[:-200]):
        with pytest.raises(ImageError, match=r"^core-000\.tar: a\.jpg"):
            decode_image(bad, "core-000.tar: a.jpg")


@EXAMPLES
@given(
    st.binary(max_size=200),
    st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF"]),
    st.integers(0, 400),
)
def test_damaged_files_raise_only_image_errors(tmp_path_factory, junk, kind, at):
    buffer = io.BytesIO()
    Image.fromarray(picture(height=16, width=16)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    content[at : at + len(junk)] = junk
    path = write(tmp_path_factory.getbasetemp() / "damaged", bytes(content))
    with contextlib.suppress(ImageError):
        assert open_image(path).dtype == np.uint8


@pytest.mark.parametrize("side", [10_500, 30_000])
def test_slides_are_refused_with_the_hint_to_use_them_as_such(tmp_path, side):
    header = b"IHDR" + struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    chunks = [(header, zlib.crc32(header)), (b"IDAT", zlib.crc32(b"IDAT"))]
    content = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", crc) for c, crc in chunks
    )
    write(tmp_path / "huge.png", b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ImageError, match=r"huge\.png.*slide"):
        open_image(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=rf"{side} x {side} px is more than 100 megapixels"):
        open_image(np.broadcast_to(np.uint8(0), (side, side, 3)))


def test_missing_paths_empty_folders_and_other_things_are_refused_at_once(tmp_path):
    with pytest.raises(ImageError, match=r"no such file or folder.*nowhere"):
        iterate(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="no images in"):
        iterate(tmp_path)
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    for thing in (5, None, {"a": picture()}, b"bytes"):
        with pytest.raises(ImageError, match=type(thing).__name__):
            iterate(thing)
    assert list(iterate([])) == []


def test_a_url_in_place_of_a_path_is_refused_with_advice_and_without_its_signature():
    url = "https://host/tile.png?X-Amz-Signature=SECRET"
    for refused in (iterate, open_image):
        with pytest.raises(ImageError, match="download it first") as caught:
            refused(url)
        assert "host/tile.png" in str(caught.value)
        assert "SECRET" not in str(caught.value)


def test_paths_may_be_strings_or_path_objects(folder):
    for form in (str(folder / "tile2.PNG"), Path(folder / "tile2.PNG")):
        same(loaded(form)[0][1], picture(9))
