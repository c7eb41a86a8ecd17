"""JPEG tiles decoded straight into a batch: the pixels of `decode_image`, or left to it."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathencoder.images import decode_image
from training.data.jpeg_tiles import decode_plain

pytestmark = pytest.mark.full

SIDE = 48


def picture(height=SIDE, width=SIDE):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image=None, **options):
    out = io.BytesIO()
    (image or picture()).save(out, "JPEG", **({"quality": 80} | options))
    return out.getvalue()


def batch():
    return np.zeros((2, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("quality", [10, 80, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 2}])
def test_pixels_of_decode_image_in_the_batch(quality, subsampling, options):
    data, tiles = jpeg(quality=quality, subsampling=subsampling, **options), batch()
    assert decode_plain(data, tiles[1]) is not None
    assert np.array_equal(tiles[1], decode_image(data))
    assert not tiles[0].any()


@pytest.mark.parametrize("size", [(SIDE, 31), (31, SIDE), (1, 1), (200, 100)])
def test_an_image_of_another_size_leaves_the_batch_alone(size):
    data, tiles = jpeg(picture(*size)), batch()
    assert np.array_equal(decode_plain(data, tiles[0]), decode_image(data))
    assert not tiles.any()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(picture(SIDE, 31), exif=exif)


def png():
    out = io.BytesIO()
    picture().save(out, "PNG")
    return out.getvalue()


OTHERS = {
    "progressive": jpeg(progressive=True),
    "grey": jpeg(picture().convert("L")),
    "CMYK": jpeg(picture().convert("CMYK")),
    "RGB": jpeg(keep_rgb=True),
    "turned": turned(),
    "PNG": png(),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_left_to_decode_image(kind):
    assert decode_plain(OTHERS[kind], batch()[0]) is None


def test_a_stated_size_beyond_reason_allocates_nothing():
    data = bytearray(jpeg())
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    assert decode_plain(bytes(data), batch()[0]) is None


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_left_to_decode_image(left):
    data = jpeg()
    assert decode_plain(data[: int(left * len(data))], batch()[0]) is None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_left_to_decode_image_or_harmless(data):
    """Whatever is accepted here, `decode_image` accepts with the same pixels."""
    whole = jpeg(subsampling=data.draw(st.sampled_from([0, 2])))
    start, end = sorted(data.draw(st.integers(0, len(whole))) for _ in range(2))
    end = min(end, start + 60)
    damaged = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    found = decode_plain(damaged, batch()[0])
    assert found is None or np.array_equal(found, decode_image(damaged))
