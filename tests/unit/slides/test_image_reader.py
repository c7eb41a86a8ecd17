"""Plain images as slides."""

import numpy as np
import pytest
from PIL import Image
from small_slides import section

from pathencoder.errors import MissingMpp, SlideError
from pathencoder.formats import decode
from pathencoder.slides import image_reader
from pathencoder.slides.reader import open_slide


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jpg"])
def test_a_plain_image_is_a_slide_of_one_level(tmp_path, suffix):
    pixels = section(300, 200)
    options = {"lossless": True} if suffix == ".webp" else {"quality": 95}
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", **options)
    slide = open_slide(tmp_path / f"a{suffix}")
    assert slide.reader.startswith("Pillow")
    assert (slide.size, slide.downsamples) == ((300, 200), (1.0,))
    read = slide.read(-10, 20, 0, 100, 50).astype(int)
    assert (read[:, :10] == 255).all()
    assert np.abs(read[:, 10:] - pixels[20:70, :90]).mean() < (3 if suffix == ".jpg" else 1e-9)
    assert slide.mpp(0.5).source == "given"
    with pytest.raises(MissingMpp, match="--mpp"):
        slide.mpp()
    slide.close()


def test_more_pixels_than_an_image_may_have_are_read(tmp_path, monkeypatch):
    Image.fromarray(section(300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr("pathencoder.arrays.MAX_PIXELS", 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    slide = open_slide(tmp_path / "a.png")
    assert (slide.read(0, 0, 0, 300, 200) == section(300, 200)).all()
    slide.close()


def test_what_does_not_fit_in_memory_is_refused_with_a_way_out(tmp_path, monkeypatch):
    Image.fromarray(section(300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(image_reader, "MOST_PIXELS", 100)
    with pytest.raises(SlideError, match=r"300 x 200 px.*vips tiffsave"):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"text", b"\xff\xd8\xff\xe0 no jpeg", b"\x89PNG\r\n"])
def test_damaged_images_are_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(SlideError, match=r"a\.jpg"):
        open_slide(tmp_path / "a.jpg")


def test_large_images_keep_their_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(section(30, 20)).save(tmp_path / "a.png", exif=exif)
    assert decode.read_large(tmp_path / "a.png", "a", 10_000).shape == (30, 20, 3)
