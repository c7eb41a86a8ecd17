"""TIFFs that OpenSlide refuses or shows without their levels."""

import numpy as np
import pytest
from PIL import Image
from small_slides import section, write_tiff
from small_tiffs import write_subifds, write_wrong_header

from pathencoder.errors import MissingExtra, SlideError
from pathencoder.slides import tiff_reader
from pathencoder.slides.reader import open_slide

pytestmark = pytest.mark.full


@pytest.fixture
def opened():
    slides = []

    def open_it(path, reader=open_slide):
        slides.append(reader(path))
        return slides[-1]

    yield open_it
    for slide in slides:
        slide.close()


def test_the_levels_in_subifds_are_read(tmp_path, opened):
    """OpenSlide opens such a file with one level."""
    pixels = section(600, 460)
    slide = opened(write_subifds(tmp_path / "a.ome.tif", pixels))
    assert slide.reader.startswith("tifffile")
    assert slide.vendor == "ome-tiff"
    assert slide.downsamples == (1.0, 2.0, 4.0)
    assert slide.mpp().value == 0.5
    assert slide.mpp().source == "OME-XML PhysicalSizeX"
    assert (slide.read(100, 50, 0, 301, 217) == pixels[50:267, 100:401]).all()
    small = np.asarray(Image.fromarray(pixels).resize((150, 115), Image.Resampling.BOX))
    assert (slide.read(40, 80, 2, 60, 40) == small[20:60, 10:70]).all()
    edge = slide.read(-8, 440, 0, 64, 64)
    assert (edge[:20, 8:] == pixels[440:, :56]).all()
    assert (edge[20:] == 255).all()
    assert (edge[:, :8] == 255).all()


def test_jpeg_tiles_have_the_colours_of_their_data(tmp_path, opened):
    """The header says RGB: OpenSlide and fastslide would show red for glass."""
    pixels = section(600, 460)
    slide = opened(write_wrong_header(tmp_path / "a.tif", pixels))
    assert slide.reader.startswith("tifffile")
    assert any("read with tifffile" in note and "YCbCr" in note for note in slide.notes)
    read = slide.read(64, 32, 0, 400, 300).astype(int)
    assert np.abs(read - pixels[32:332, 64:464]).mean() < 3


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_strips_and_planes_are_read(tmp_path, opened, compression, planar):
    import tifffile

    pixels = section(301, 217)
    data = pixels if planar == "contig" else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        rowsperstrip=50,
        metadata=None,
    )
    slide = opened(tmp_path / "a.tif", tiff_reader.open_file)
    assert slide.size == (301, 217)
    assert (slide.read(30, 40, 0, 200, 150) == pixels[40:190, 30:230]).all()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_is_made_rgb_and_that_is_noted(tmp_path, opened, photometric):
    import tifffile

    grey = section(301, 217)[..., 0]
    stored = grey if photometric == "minisblack" else 255 - grey
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, metadata=None)
    slide = opened(tmp_path / "a.tif", tiff_reader.open_file)
    assert (slide.read(0, 0, 0, 301, 217) == grey[..., None]).all()
    assert any("grey" in note for note in slide.notes)


def test_a_file_that_was_cut_off_costs_the_missing_tiles(tmp_path, opened):
    pixels = section(512, 512)
    path = write_tiff(tmp_path / "a.tif", pixels, levels=(1,))
    data = path.read_bytes()
    import tifffile

    with tifffile.TiffFile(path) as file:
        last = file.pages[0].dataoffsets[3]
    path.write_bytes(data[: last + 10])
    slide = opened(path, tiff_reader.open_file)
    assert (slide.read(0, 0, 0, 512, 256) == pixels[:256]).all()
    with pytest.raises(SlideError, match=r"region at \(256, 256\).*cut off"):
        slide.read(256, 256, 0, 256, 256)


@pytest.mark.parametrize("filling", [b"\xff", b"\0"])
def test_a_damaged_tile_is_an_error_and_the_next_is_read(tmp_path, opened, filling):
    """libjpeg alone shows grey where the data end."""
    path = write_wrong_header(tmp_path / "a.tif", section(512, 256))
    import tifffile

    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = filling * (count - count // 2)
    path.write_bytes(data)
    slide = opened(path, tiff_reader.open_file)
    with pytest.raises(SlideError, match=r"region at \(300, 0\)"):
        slide.read(300, 0, 0, 64, 64)
    assert slide.read(0, 0, 0, 64, 64).shape == (64, 64, 3)


def test_several_images_are_refused(tmp_path):
    import tifffile

    stack = np.stack([section(96, 64)] * 3)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", metadata=None)
    with pytest.raises(SlideError, match="3 images of 96 x 64 px"):
        tiff_reader.open_file(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("data", "options", "word"),
    [
        (np.zeros((64, 64, 3), np.uint16), {"photometric": "rgb"}, "16 bits"),
        (np.zeros((64, 64, 2), np.uint8), {"photometric": "minisblack"}, "2 channels"),
        (np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "colours of the kind"),
    ],
)
def test_other_pixels_than_rgb_and_grey_are_refused(tmp_path, data, options, word):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", data, metadata=None, planarconfig="contig", **options)
    with pytest.raises(SlideError, match=word):
        tiff_reader.open_file(tmp_path / "a.tif")


def test_what_is_no_tiff_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    for path in (tmp_path / "a.tif", tmp_path):
        with pytest.raises(SlideError, match="not a TIFF"):
            tiff_reader.open_file(path)


def test_a_compression_of_another_package_names_its_extra(tmp_path, monkeypatch):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", section(64, 64), photometric="rgb", compression="zlib")

    def refuse(page, *args, **more):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tiff_reader, "_decode", refuse)
    with pytest.raises(MissingExtra, match=r"pathencoder\[tiff\]"):
        tiff_reader.open_file(tmp_path / "a.tif")
