"""More than 8 bits: scaled by the stated range, refused where the values contradict it."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from small_encoders import picture

from pathencoder.errors import ImageError
from pathencoder.images import decode_image, iterate, open_image

GREY = picture(height=16, width=24).mean(2).astype(np.uint8)
COLOUR = np.maximum(picture(height=16, width=24), 1)
DEEP = GREY.astype(np.uint16)
TWELVE_BITS = "looks like 12 bits stored in more"
EIGHT_BITS = r"looks like 8 bits stored in more.*astype\('uint8'\)"


def png(values, colour, more=b""):
    """The bytes of a 16-bit PNG; colour: the header's number of the kind."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">2I5B", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = (
        chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (DEEP * 16, rf"0 to 65535, but no value above \d+: it {TWELVE_BITS}.*4095"),
        (DEEP, EIGHT_BITS),
        (DEEP.astype(">u2"), EIGHT_BITS),
        (DEEP * 64, "looks like 14 bits"),
        (COLOUR.astype(np.uint16) * 16, TWELVE_BITS),
        (
            np.dstack([COLOUR.astype(np.uint16) * 16, np.full(GREY.shape, 65535, np.uint16)]),
            TWELVE_BITS,
        ),
        (
            DEEP.astype(np.int32),
            r"int32 with values from \d+ to \d+ is not supported.*astype\('uint8'\)",
        ),
        (DEEP.astype(np.int64), r"int64 with values from \d+ to \d+ is not supported"),
        (GREY > 100, r"bool is not supported.*\* 255"),
        (DEEP * 16 / 65535, "nearly black.*divided by 65535"),
    ],
)
def test_arrays_of_another_range_are_refused(array, words):
    with pytest.raises(ImageError, match=words):
        open_image(array)


def test_big_endian_arrays_are_read_as_such():
    np.testing.assert_array_equal(
        open_image((COLOUR.astype(np.uint16) * 257).astype(">u2")), COLOUR
    )
    np.testing.assert_array_equal(open_image((COLOUR / 255).astype(">f4")), COLOUR)


def test_a_stack_of_16_bits_is_checked_by_its_whole_range():
    stack = np.stack([COLOUR.astype(np.uint16) * 16, COLOUR.astype(np.uint16) * 257])
    assert [item.load().shape for item in iterate(stack)] == [COLOUR.shape] * 2
    for item in iterate(stack // 16):
        with pytest.raises(ImageError, match=r"number \d of the stack.*it looks like"):
            item.load()


def test_black_is_black_in_every_range():
    for dtype in (np.uint8, np.uint16, np.float32):
        assert not open_image(np.zeros((4, 4, 3), dtype)).any()


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_pngs_of_every_colour_are_checked_by_their_colours(colour, channels):
    full = np.repeat(DEEP[..., None] * 257, channels, axis=2)
    if colour >= 4:
        full[..., -1] = 65535
    found = decode_image(png(full, colour))
    assert np.abs(found.astype(int) - GREY[..., None]).max() <= 1
    dark = full // 16
    if colour >= 4:
        dark[..., -1] = 65535
    with pytest.raises(ImageError, match=TWELVE_BITS):
        decode_image(png(dark, colour))


def test_netpbm_is_scaled_by_its_maximum_and_refused_by_the_same_rule():
    stated = np.rint(COLOUR / 255 * 4095).astype(">u2")
    found = decode_image(b"P6 24 16 4095\n" + stated.tobytes())
    assert np.abs(found.astype(int) - COLOUR).max() <= 1
    for kind in (b"P6 24 16 65535\n", b"P5 72 16 65535\n"):
        with pytest.raises(ImageError, match="or is very dark"):
            decode_image(kind + stated.tobytes())


@pytest.mark.parametrize("alpha", [0, 1, 15])
def test_what_is_fully_transparent_is_refused(tmp_path, alpha):
    rgba = np.dstack([COLOUR, np.full(GREY.shape, alpha, np.uint8)])
    grey = Image.fromarray(GREY)
    grey.putalpha(alpha)
    grey.save(tmp_path / "grey.png")
    Image.fromarray(rgba).save(tmp_path / "colour.png")
    Image.fromarray(rgba).save(tmp_path / "colour.webp", lossless=True, exact=True)
    forms = [rgba, Image.fromarray(rgba), *sorted(tmp_path.iterdir())]
    if not alpha:
        Image.fromarray(GREY).quantize(4).save(tmp_path / "palette.png", transparency=bytes(4))
        forms += [tmp_path / "palette.png", rgba.astype(np.uint16) * 257, rgba / 255.0]
    for form in forms:
        with pytest.raises(ImageError, match=r"(fully|nearly) transparent"):
            open_image(form)


def test_float_tensors_that_are_nearly_black_are_refused():
    with pytest.raises(ImageError, match="nearly black"):
        open_image(torch.linspace(0, 0.06, 192).view(3, 8, 8))
