"""TIFFs that Pillow does not read correctly, written and read with tifffile."""

import numpy as np
import pytest
import tifffile
from small_encoders import picture

from pathencoder.errors import ImageError
from pathencoder.images import decode_image, open_image

pytestmark = pytest.mark.full

IMAGE = picture(height=48, width=64)
GREY = IMAGE[..., 0]
PLANES = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
ALPHA = np.full(GREY.shape, 255, np.uint8)
RGB, PLANAR = {"photometric": "rgb"}, {"photometric": "rgb", "planarconfig": "separate"}
WHITE = {"photometric": "miniswhite"}


def wide(array):
    return array.astype(np.uint16) * 257


def twelve(array):
    return np.rint(array / 255 * 4095).astype(np.uint16)


READ = {
    "16-bit planes": (wide(PLANES), PLANAR),
    "16-bit planes, compressed": (wide(PLANES), {**PLANAR, "compression": "zlib"}),
    "8-bit planes": (PLANES, PLANAR),
    "16-bit min-is-white": (65535 - wide(GREY), WHITE),
    "16-bit min-is-white, big-endian": (65535 - wide(GREY), {**WHITE, "byteorder": ">"}),
    "8-bit min-is-white": (255 - GREY, WHITE),
    "float min-is-white": (1 - GREY.astype(np.float32) / 255, WHITE),
    "float colours": (IMAGE.astype(np.float32) / 255, RGB),
    "half floats": ((IMAGE / 255).astype(np.float16), RGB),
    "float planes": (PLANES.astype(np.float32) / 255, PLANAR),
    "float colours of a stated range": (
        IMAGE.astype(np.float32),
        {**RGB, "extratags": [(341, "f", 3, (255.0,) * 3, True)]},
    ),
    "12 bits of a stated range": (
        twelve(IMAGE),
        {**RGB, "extratags": [(281, "H", 3, (4095,) * 3, True)]},
    ),
    "16-bit colours": (wide(IMAGE), RGB),
    "16-bit planes with alpha": (
        wide(np.concatenate([PLANES, ALPHA[None]])),
        {**PLANAR, "extrasamples": ["unassalpha"]},
    ),
    "BigTIFF": (IMAGE, {**RGB, "bigtiff": True}),
    "ImageJ": (wide(GREY), {"imagej": True}),
}


@pytest.mark.parametrize("name", READ)
def test_they_are_read_correctly(tmp_path, name):
    data, how = READ[name]
    tifffile.imwrite(tmp_path / "a.tif", data, **how)
    expected = IMAGE if data.ndim == 3 else np.repeat(GREY[..., None], 3, axis=2)
    for found in (open_image(tmp_path / "a.tif"), decode_image((tmp_path / "a.tif").read_bytes())):
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 1


REFUSED = {
    "channels as pages": (PLANES, {"photometric": "minisblack"}, "holds 3 pages"),
    "ImageJ composite": (
        PLANES,
        {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}},
        "holds 3 pages",
    ),
    "focus stack": (np.stack([IMAGE] * 3), {**RGB, "metadata": {"axes": "ZYXS"}}, "holds 3 pages"),
    "OME channels": (PLANES, {"ome": True, "photometric": "minisblack"}, "holds 3 pages"),
    "channels as planes": (
        PLANES,
        {"photometric": "minisblack", "planarconfig": "separate"},
        "3 channels without colours",
    ),
    "a stack behind one page": (
        np.stack([GREY] * 4),
        {"photometric": "minisblack", "truncate": True},
        "holds 4 pages or planes",
    ),
    "12 bits in planes": (twelve(PLANES), PLANAR, "12 bits stored in more"),
    "12 bits in 16, colours": (twelve(IMAGE), RGB, "12 bits stored in more"),
    "signed 8 bits": (GREY.astype(np.int8), {}, "whole numbers from -"),
    "signed 16 bits below 0": (
        (wide(GREY).astype(int) - 32768).astype(np.int16),
        {},
        "whole numbers from -",
    ),
    "0 to 255 as float": (IMAGE.astype(np.float32), RGB, r"0\.\.255 stored as float"),
    "not a number": (np.full((8, 8, 3), np.nan, np.float32), RGB, "NaN"),
    "complex": (GREY.astype(np.complex64), {}, "type complex64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_files_are_refused_by_name(tmp_path, name):
    data, how, words = REFUSED[name]
    tifffile.imwrite(tmp_path / "a.tif", data, **how)
    with pytest.raises(ImageError, match=words):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_readers_apply_the_orientation(tmp_path, orientation):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "pillow.tif", IMAGE, extratags=tag, **RGB)
    tifffile.imwrite(tmp_path / "tifffile.tif", wide(PLANES), extratags=tag, **PLANAR)
    np.testing.assert_array_equal(
        open_image(tmp_path / "pillow.tif"), open_image(tmp_path / "tifffile.tif")
    )


def two_pages(path, second, *, sub=False, first=IMAGE, **how):
    with tifffile.TiffWriter(path) as file:
        file.write(first, subifds=int(sub), **RGB, **how)
        file.write(second, **RGB, subfiletype=1, **how)


@pytest.mark.parametrize("sub", [False, True])
def test_a_pyramid_is_a_slide(tmp_path, sub):
    two_pages(tmp_path / "p.tif", np.ascontiguousarray(IMAGE[::2, ::2]), sub=sub, tile=(16, 16))
    with pytest.raises(ImageError, match=r"a whole slide.*pathencoder encode p\.tif --out"):
        open_image(tmp_path / "p.tif")


def test_a_preview_is_accepted_after_the_image_and_refused_before_it(tmp_path):
    small = np.ascontiguousarray(IMAGE[::4, ::4])
    two_pages(tmp_path / "behind.tif", small)
    np.testing.assert_array_equal(open_image(tmp_path / "behind.tif"), IMAGE)
    with tifffile.TiffWriter(tmp_path / "before.tif") as file:
        file.write(small, subfiletype=1, **RGB)
        file.write(IMAGE, **RGB)
    with pytest.raises(ImageError, match="first page is a preview"):
        open_image(tmp_path / "before.tif")


def test_damaged_files_raise_only_image_errors(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", wide(PLANES), compression="zlib", **PLANAR)
    data = (tmp_path / "a.tif").read_bytes()
    for cut in range(10, len(data), 97):
        with pytest.raises(ImageError):
            decode_image(data[:cut])
