"""What readers would show wrongly: false colours, too many bits; the files of a DICOM slide."""

import io
import struct

import numpy as np
import pytest
from dicom_headers import EXPLICIT, IMPLICIT, dicom
from PIL import Image
from small_slides import MemorySlide, section, write_tiff
from tiff_headers import page, tiff

from pathencoder.errors import ImageError, SlideError
from pathencoder.formats.jpeg_colours import jpeg_colours
from pathencoder.images import open_image
from pathencoder.slides import checks, openslide_reader
from pathencoder.slides.dicom import files_of_slide, read_header, series_of
from pathencoder.slides.reader import open_slide


def jpeg(pixels=None, **options):
    """The bytes of a JPEG by Pillow: YCbCr with a JFIF marker, or RGB with keep_rgb=True."""
    stream = io.BytesIO()
    pixels = section(256, 256) if pixels is None else pixels
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def without_markers(data):
    """A JPEG without its JFIF and Adobe segments."""
    out, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        out += b"" if data[at + 1] in (0xE0, 0xEE) else data[at:end]
        at = end
    return out + data[at:]


def test_a_jpegs_colours_are_read_from_its_markers():
    assert jpeg_colours(jpeg()) == "YCbCr"
    assert jpeg_colours(jpeg(keep_rgb=True)) == "RGB"
    assert jpeg_colours(without_markers(jpeg(subsampling=2))) == "YCbCr"
    assert jpeg_colours(without_markers(jpeg(subsampling=0))) is None  # nothing says it
    assert jpeg_colours(jpeg(np.zeros((8, 8), np.uint8))) is None


def test_damaged_jpegs_say_no_colours():
    data = jpeg()[:700]
    for cut in range(len(data)):
        assert jpeg_colours(data[:cut]) in (None, "YCbCr")
        assert jpeg_colours(data[:cut] + b"\xff" * 40) in (None, "YCbCr", "RGB")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_the_series_is_the_files_own(tmp_path, syntax):
    """A sequence before it refers to another series."""
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom("1.2.840.7", syntax=syntax))
    assert series_of(path) == "1.2.840.7"
    assert series_of(str(path)) == "1.2.840.7"


def test_what_is_no_dicom_has_no_series(tmp_path):
    for data in (b"", b"x" * 200, b"\0" * 128 + b"DICM"):
        (tmp_path / "a.dcm").write_bytes(data)
        assert series_of(tmp_path / "a.dcm") is None
    assert series_of(tmp_path / "gone.dcm") is None
    assert series_of(tmp_path) is None


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom("1.2.3"))
    assert series_of(path) == "1.2.3"
    path.write_bytes(dicom("1.2.3.4.5"))
    assert series_of(path) == "1.2.3.4.5"


def test_damaged_dicom_headers_raise_nothing(tmp_path):
    whole, path = dicom(frame=jpeg()[:200]), tmp_path / "a.dcm"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        read_header(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        read_header(path)


@pytest.mark.parametrize(
    ("colours", "options", "wrong"),
    [
        ("RGB", {}, True),
        ("RGB", {"keep_rgb": True}, False),
        ("YBR_FULL_422", {}, False),
        ("YBR_FULL_422", {"keep_rgb": True}, True),
        ("MONOCHROME2", {}, False),
    ],
)
def test_dicom_frames_of_other_colours_than_the_header_says(tmp_path, colours, options, wrong):
    for name in ("a.dcm", "without suffix"):
        path = tmp_path / name
        path.write_bytes(dicom(colours=colours, frame=jpeg(**options)))
        assert read_header(path).false_colours is wrong
        assert bool(checks.false_colours(path)) is wrong


def test_one_level_of_a_slide_in_false_colours_is_enough(tmp_path):
    files = {"0": {"colours": "RGB", "frame": jpeg(keep_rgb=True)}, "1": {"frame": jpeg()}}
    files |= {"label": {"kind": "LABEL", "frame": jpeg()}}
    files |= {"other": {"series": "7", "frame": jpeg()}}
    for name, options in files.items():
        (tmp_path / f"{name}.dcm").write_bytes(dicom(**options))
    found = checks.false_colours(tmp_path / "0.dcm")
    assert "header of 1.dcm says RGB, and its JPEG frames hold YCbCr" in found
    assert "1 file " in found


def test_a_folder_is_one_dicom_slide(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom("1", frame=jpeg()))
    (tmp_path / "label.dcm").write_bytes(dicom("1", kind="LABEL") + b"\0" * 100_000)
    assert files_of_slide(tmp_path) == (tmp_path / "a.dcm", [tmp_path / "a.dcm"])
    (tmp_path / "b.dcm").write_bytes(dicom("2"))
    with pytest.raises(SlideError, match=r"2 DICOM slides.*a\.dcm, b\.dcm"):
        files_of_slide(tmp_path)


def with_tile(photometric, data):
    """A TIFF of one 256 px tile that holds a JPEG; photometric 2 is RGB, 6 YCbCr."""
    tags = {"t258": (8, 8, 8), "t259": 7, "t262": photometric, "t277": 3, "t284": 1}
    empty = tiff(page(256, 256, tiled=True, **tags, t324=1, t325=len(data)))
    whole = tiff(page(256, 256, tiled=True, **tags, t324=len(empty), t325=len(data)))
    return whole + data


@pytest.mark.parametrize(
    ("photometric", "options", "wrong"),
    [(2, {}, True), (2, {"keep_rgb": True}, False), (6, {}, False), (6, {"keep_rgb": True}, True)],
)
def test_tiff_tiles_of_other_colours_than_the_header_says(tmp_path, photometric, options, wrong):
    path = tmp_path / "a.tif"
    path.write_bytes(with_tile(photometric, jpeg(subsampling=0, **options)))
    assert bool(checks.false_colours(path)) is wrong
    assert ("tifffile" in checks.why_unsupported(path)) is wrong
    if wrong:
        with pytest.raises(ImageError, match="colours would be false"):
            open_image(path)
    else:
        off = open_image(path).mean((0, 1)) - section(256, 256).mean((0, 1))
        assert np.abs(off).max() < 5


@pytest.mark.full
@pytest.mark.parametrize(("photometric", "keep_rgb"), [(2, False), (6, True)])
def test_a_slide_that_openslide_shows_in_false_colours_is_refused(tmp_path, photometric, keep_rgb):
    import openslide

    pixels, path = section(256, 256, ((0, 0, 256, 256),)), tmp_path / "a.tif"
    path.write_bytes(with_tile(photometric, jpeg(pixels, subsampling=0, keep_rgb=keep_rgb)))
    with openslide.OpenSlide(path) as slide:
        shown = np.asarray(slide.read_region((0, 0), 0, (256, 256)).convert("RGB")).mean((0, 1))
    assert np.abs(shown - pixels.mean((0, 1))).max() > 20  # else there is nothing to refuse
    with pytest.raises(SlideError, match="colours would be false"):
        openslide_reader.open_file(path)


def test_why_a_tiff_is_not_read(tmp_path):
    path = tmp_path / "a.tif"
    cases = {
        "stored in strips": page(64, 64, resolution=20_000, unit="centimeter"),
        "compression 50002": page(64, 64, tiled=True, t259=50002),
        "may be damaged": page(64, 64, tiled=True, t259=1),
    }
    for words, tags in cases.items():
        path.write_bytes(tiff(tags))
        assert words in checks.why_unsupported(path)
    path.write_bytes(tiff(cases["stored in strips"]))
    assert "--mpp 0.5" in checks.why_unsupported(path)
    path.write_bytes(b"II*\0\0\0")
    assert "damaged TIFF" in checks.why_unsupported(path)


def deep(path, highest):
    path.write_bytes(tiff(page(1024, 768, tiled=True, t258=16, t262=1, t277=1)))
    pixels = np.zeros((768, 1024, 3), np.uint8)
    pixels[300:310, 500:510] = highest
    return MemorySlide(pixels, path=path)


def test_more_than_8_bits_are_said_and_refused_where_they_would_be_black(tmp_path):
    path = tmp_path / "a.tif"
    assert checks.blank(deep(path, 200), path) == ""
    assert "stay below 4,096 of 65,536" in checks.blank(deep(path, 15), path)
    assert checks.notes_on(path) == (
        "16 bits a sample: the upper 8 are read",
        "a grey slide: red, green and blue are the same",
    )
    path.write_bytes(tiff(page(64, 64, tiled=True, t258=(8, 8, 8), t262=2, t277=3)))
    assert checks.notes_on(path) == ()
    assert checks.blank(MemorySlide(np.zeros((64, 64, 3), np.uint8), path=path), path) == ""


def test_a_slide_that_alpha_hides_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(page(64, 64, tiled=True, t258=(8, 8, 8, 8), t277=4, t338=2)))
    white = np.full((64, 64, 3), 255, np.uint8)
    assert "alpha" in checks.blank(MemorySlide(white, path=path), path)
    white[5, 5] = 100
    assert checks.blank(MemorySlide(white, path=path), path) == ""


RGB = {"tiled": True, "t258": (8, 8, 8), "t262": 2, "t277": 3}


@pytest.mark.parametrize(
    ("pages", "vendor", "reason"),
    [
        ([page(640, 480, **RGB), page(320, 240, **RGB)], "generic-tiff", ""),
        ([page(640, 480, **RGB), page(640, 480, **RGB)], "generic-tiff", "2 images of 640 x 480"),
        ([page(640, 480, **RGB), page(640, 480, **RGB)], "aperio", ""),
        ([page(640, 480, **RGB), page(700, 500, **RGB)], "generic-tiff", "that of 700 x 500 px"),
        ([page(640, 480, **RGB), page(700, 500, **RGB)], "aperio", ""),
        ([page(640, 480, **RGB), page(500, 700, **RGB), page(9, 9)], "generic-tiff", "500 x 700"),
        ([page(640, 480, **RGB), page(700, 500)], "generic-tiff", ""),  # a picture of the glass
        ([page(640, 480), page(700, 500)], "generic-tiff", "700 x 500"),
        ([page(640, 480, **RGB), page(300, 400, **RGB)], "generic-tiff", ""),
        ([page(640, 480, **RGB | {"t277": 5})], "generic-tiff", "5 channels"),
        ([page(640, 480, **RGB | {"t277": 4, "t338": 0})], "generic-tiff", "4 channels"),
        ([page(640, 480, **RGB | {"t277": 4, "t338": 1})], "generic-tiff", ""),
        ([page(640, 480, **RGB | {"t258": 32})], "generic-tiff", "32 bits"),
    ],
)
def test_pages_and_samples_that_would_be_left_out_or_misread(tmp_path, pages, vendor, reason):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(*pages))
    found = checks.unreadable(path, generic=vendor == "generic-tiff")
    assert reason in found if reason else found == ""


@pytest.mark.parametrize(
    ("pages", "name", "note"),
    [
        ([page(300, 400, **RGB), page(150, 200, **RGB)], "a.tif", "(300 x 400, 150 x 200 px)"),
        ([page(700, 500)], "a.tif", "(700 x 500 px)"),
        ([page(300, 400, **RGB)], "a.svs", ""),
        ([page(320, 240, **RGB), page(160, 120, t254=1)], "a.tif", ""),
        ([page(60, 70, **RGB)], "a.tif", ""),  # a label
    ],
)
def test_a_smaller_image_that_is_not_read_is_a_note(tmp_path, pages, name, note):
    path = tmp_path / name
    path.write_bytes(tiff(page(640, 480, **RGB), *pages))
    found = checks.other_images(path)
    assert note in found[0] if note else found == ()


@pytest.mark.full
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_two_sections_of_one_file(tmp_path, name):
    import tifffile

    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
    for order in (1, -1):
        with tifffile.TiffWriter(tmp_path / name, ome=name == "a.ome.tif") as file:
            for pixels in (section(600, 500), section(800, 900))[::order]:
                file.write(pixels, metadata=None if name == "a.tif" else {}, **options)
        if order == 1:
            with pytest.raises(SlideError, match="not that of 800 x 900 px"):
                open_slide(tmp_path / name)
    slide = open_slide(tmp_path / name)
    assert "not read (600 x 500 px)" in slide.notes[0]
    slide.close()


@pytest.mark.full
def test_channels_in_pages_are_no_grey_slide(tmp_path):
    import tifffile

    planes = np.ascontiguousarray(section(512, 512).transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, tile=(256, 256), photometric="minisblack")
    with pytest.raises(SlideError, match="3 images of 512 x 512 px"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.full
def test_a_12_bit_slide_is_refused_and_a_16_bit_one_says_what_is_read(tmp_path):
    import tifffile

    grey = section(512, 512)[..., 0].astype(np.uint16)
    options = {"tile": (256, 256), "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "12.tif", grey * 16, **options)
    tifffile.imwrite(tmp_path / "16.tif", grey * 257, **options)
    with pytest.raises(SlideError, match="16-bit samples stay below"):
        open_slide(tmp_path / "12.tif")
    slide = open_slide(tmp_path / "16.tif")
    assert "the upper 8 are read" in slide.notes[0]
    assert np.abs(slide.read(0, 0, 0, 512, 512)[..., 0].astype(int) - grey).max() <= 1
    slide.close()


def test_tiles_larger_than_any_scanners_are_a_damaged_header():
    found = checks.oversized_tiles(
        {"openslide.level[0].tile-width": "65535", "openslide.level[0].tile-height": "256"}
    )
    assert "level[0] has tiles with a width of 65535 px" in found
    assert not checks.oversized_tiles(
        {"openslide.level[0].tile-width": "512", "openslide.mpp-x": "0.25", "aperio.tile-note": "x"}
    )


@pytest.mark.full
def test_a_tiff_whose_tags_name_enormous_tiles_is_refused_before_it_is_opened(
    tmp_path, monkeypatch
):
    path = write_tiff(tmp_path / "a.tif", section(256, 256), levels=(1,))
    data = path.read_bytes()
    tag = struct.pack("<HHI", 322, 4, 1)  # TileWidth, one number
    if tag not in data:
        tag = struct.pack("<HHI", 322, 3, 1)
    at = data.index(tag)
    changed = struct.pack("<HHII", 322, 4, 1, 2_097_408)
    path.write_bytes(data[:at] + changed + data[at + len(changed) :])
    with pytest.raises(ImageError, match="tiles with a side of 2097408 px"):
        open_image(path)
    monkeypatch.setattr(
        "pathencoder.slides.openslide_reader.OpenSlideReader", lambda *_: pytest.fail("opened")
    )
    with pytest.raises(SlideError, match="page 1 has tiles with a side of 2097408 px"):
        open_slide(path)
