"""Opening slides: mpp and its source, alpha, bounds, damage, other formats, no OpenSlide."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from small_slides import MemorySlide, section, write_tiff

from pathencoder.arrays import over_white
from pathencoder.errors import MissingExtra, MissingMpp, SlideError
from pathencoder.formats import file_kinds
from pathencoder.slides import openslide_reader
from pathencoder.slides.levels import true_downsample
from pathencoder.slides.mpp import find_mpp
from pathencoder.slides.reader import open_slide


@pytest.mark.parametrize(
    ("properties", "value", "source"),
    [
        ({"openslide.mpp-x": "0.2520", "openslide.mpp-y": "0.2528"}, 0.2524, "openslide.mpp-x"),
        ({"aperio.MPP": "0,499"}, 0.499, "aperio.MPP"),
        (
            {
                "tiff.XResolution": "20040",
                "tiff.YResolution": "20040",
                "tiff.ResolutionUnit": "centimeter",
            },
            0.499,
            "tiff.XResolution",
        ),
        (
            {
                "tiff.XResolution": "50800",
                "tiff.YResolution": "50800",
                "tiff.ResolutionUnit": "inch",
            },
            0.5,
            "tiff.XResolution",
        ),
        (
            {"openslide.mpp-x": "352", "openslide.mpp-y": "352", "aperio.MPP": "0.25"},
            0.25,
            "aperio.MPP",
        ),
    ],
)
def test_mpp_and_where_it_is_from(properties, value, source):
    found = find_mpp(properties, name="a.svs")
    assert found.value == pytest.approx(value, rel=1e-3)
    assert found.source == source


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({}, "does not say"),
        ({"openslide.mpp-x": "1015999.98", "openslide.mpp-y": "1015999.98"}, r"1\.016e\+06"),
        ({"openslide.mpp-x": "352", "openslide.mpp-y": "352"}, "352"),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"}, "does not say"),
        ({"openslide.mpp-x": "nonsense", "openslide.mpp-y": "0.5"}, "does not say"),
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "nan"}, "does not say"),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, "not square"),
    ],
)
def test_a_missing_or_absurd_mpp_is_refused_with_the_way_out(properties, word):
    with pytest.raises(MissingMpp, match=word) as error:
        find_mpp(properties, name="a.svs")
    assert "--mpp" in str(error.value)
    assert "a.svs" in str(error.value)


def test_the_objective_is_a_hint_and_no_answer():
    with pytest.raises(MissingMpp, match=r"20x, which usually means about 0\.5"):
        find_mpp({"openslide.objective-power": "20"}, name="a.svs")


def test_the_users_mpp_comes_first():
    found = find_mpp(
        {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, name="a.svs", given=0.5
    )
    assert (found.value, found.source) == (0.5, "given")


def test_alpha_is_laid_over_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, :, 3], rgba[1, 0] = 255, (10, 20, 30, 128)
    rgb = over_white(rgba)
    assert (rgb[0] == 0).all()
    assert (rgb[1, 1:] == 255).all()
    assert rgb[1, 0].tolist() == [132, 137, 142]


def test_bounds_are_clipped_to_the_slide():
    names = ("x", "y", "width", "height")
    properties = {
        f"openslide.bounds-{n}": v for n, v in zip(names, ("10", "20", "5000", "30"), strict=True)
    }
    assert openslide_reader._bounds(properties, (100, 100)) == (10, 20, 90, 30)
    assert openslide_reader._bounds({}, (100, 80)) == (0, 0, 100, 80)
    empty = {f"openslide.bounds-{n}": "0" for n in names}
    assert openslide_reader._bounds(empty, (100, 80)) == (0, 0, 100, 80)


def test_what_is_no_file_or_a_foreign_format_says_so(tmp_path):
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "gone.svs")
    (tmp_path / "a.kfb").write_bytes(b"x")
    with pytest.raises(SlideError, match=r"no reader for \.kfb"):
        open_slide(tmp_path / "a.kfb")
    (tmp_path / "empty.svs").touch()
    with pytest.raises(SlideError, match="empty"):
        open_slide(tmp_path / "empty.svs")
    with pytest.raises(SlideError, match=r"\.dcm"):
        open_slide(tmp_path)


@pytest.mark.parametrize(
    ("size", "level", "said", "factor"),
    [
        ((2220, 2967), (555, 741), 4.002, 4.0),
        ((2220, 2967), (139, 186), 15.961, 16.0),
        ((1000, 1000), (300, 300), 3.3333, 3.3333),
        ((100_000, 80_000), (25_000, 20_000), 4.0, 4.0),
    ],
)
def test_a_downsample_is_a_whole_number_where_the_sizes_allow_it(size, level, said, factor):
    assert true_downsample(size, level, said) == factor


def test_without_openslide_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    with pytest.raises(MissingExtra, match=r"pip install 'pathencoder\[wsi\]'"):
        open_slide(tmp_path / "a.svs")


@pytest.fixture
def tiff(tmp_path):
    return write_tiff(tmp_path / "slide.tiff", section())


@pytest.mark.full
def test_a_pyramid_is_read_exactly(tiff):
    slide = open_slide(tiff)
    assert slide.size == (1024, 768)
    assert slide.downsamples == pytest.approx((1, 4))
    assert slide.mpp().value == pytest.approx(0.5, rel=1e-3)
    assert (slide.read(100, 50, 0, 64, 32) == section()[50:82, 100:164]).all()
    assert (slide.read(-10, -10, 0, 20, 20)[:10, :10] == 255).all()
    slide.close()


@pytest.mark.full
def test_the_handles_of_all_threads_share_one_cache(tiff, monkeypatch):
    import openslide

    given = []
    monkeypatch.setattr(openslide.OpenSlide, "set_cache", lambda _, cache: given.append(cache))
    slide = open_slide(tiff)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(slide.read, 0, 0, 0, 8, 8).result()
    slide.close()
    assert len(given) == 2
    assert given[0] is given[1]
    assert isinstance(given[0], openslide.OpenSlideCache)


@pytest.mark.full
def test_level_pixels_are_where_level_0_says(tmp_path):
    """The far corner of a slide whose sides are not multiples of the factor.

    OpenSlide's own downsample is off by a pixel there.
    """
    pixels = section(4095, 3001, ((0, 0, 4095, 3001),))
    slide = open_slide(write_tiff(tmp_path / "slide.tiff", pixels, levels=(1, 16)))
    assert slide.downsamples == (1.0, 16.0)
    small = np.asarray(Image.fromarray(pixels).resize((255, 187), Image.Resampling.BOX)).astype(int)
    read = slide.read(220 * 16, 160 * 16, 1, 20, 20).astype(int)
    assert np.abs(read - small[160:180, 220:240]).mean() < 1
    slide.close()


@pytest.mark.full
def test_bytes_that_are_no_text_in_a_description_cost_nothing(tmp_path):
    import tifffile

    text = (
        b"Aperio Image\r\n512x512 (256x256)|MPP = 0.499|User = \xd5\xc5|\xc8\xfd = 1|AppMag = 20\0"
    )
    tags = [(270, 2, len(text), text, True)]
    tifffile.imwrite(
        tmp_path / "a.svs",
        section(512, 512),
        tile=(256, 256),
        photometric="rgb",
        metadata=None,
        extratags=tags,
    )
    slide = open_slide(tmp_path / "a.svs")
    assert slide.mpp().value == 0.499
    assert slide.properties["aperio.AppMag"] == "20"
    slide.close()


@pytest.mark.full
def test_one_damaged_tile_costs_one_tile(tmp_path):
    """An OpenSlide handle stays in its error state: without a new one every later read fails."""
    import tifffile

    path = write_tiff(tmp_path / "slide.tiff", section(), levels=(1,))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, length = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = b"\xff" * length
    path.write_bytes(data)
    slide = open_slide(path)
    failed = []
    for y in range(0, 768, 256):
        for x in range(0, 1024, 256):
            try:
                slide.read(x, y, 0, 256, 256)
            except SlideError:
                failed.append((x, y))
    assert failed == [(256, 256)]
    slide.close()


@pytest.mark.full
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\xff\xd8\xff\xe0 jpeg", "a JPEG image"),
        (b"plain text", "not a slide"),
        (b"II*\0" + b"\0" * 40, "a damaged TIFF"),
    ],
)
def test_wrong_content_is_named(tmp_path, content, word):
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(SlideError, match=word):
        open_slide(tmp_path / "a.svs")


def test_a_new_format_is_a_module_and_its_suffix(tmp_path, monkeypatch):
    made = MemorySlide(pixels=section(64, 64), path=tmp_path / "a.new")
    made.path.write_bytes(b"x")
    module = ModuleType("reader_of_new")
    module.open_file = lambda path: made
    monkeypatch.setitem(sys.modules, "reader_of_new", module)
    monkeypatch.setitem(file_kinds.READERS, ".new", ("reader_of_new",))
    assert open_slide(made.path) is made
