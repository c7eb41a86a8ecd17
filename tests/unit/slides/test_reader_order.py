"""Which of several readers opens a slide, and what is said of it."""

import sys
from types import ModuleType

import pytest
from small_slides import MemorySlide, section
from small_tiffs import write_wrong_header
from tiff_headers import page, tiff

from pathencoder.errors import MissingExtra, SlideError
from pathencoder.formats import file_kinds
from pathencoder.slides.reader import open_slide


@pytest.fixture
def readers(monkeypatch):
    """Replaces the readers of .svs: readers({name: slide or error}), in their order."""

    def replace(found):
        for name, result in found.items():
            module = ModuleType(name)

            def open_file(path, result=result):
                if isinstance(result, Exception):
                    raise result
                return result

            module.open_file = open_file
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setitem(file_kinds.READERS, ".svs", tuple(found))

    return replace


@pytest.fixture
def made(tmp_path):
    """Slides in memory whose file is a TIFF of two levels."""
    path = tmp_path / "a.svs"
    path.write_bytes(tiff(page(512, 384, tiled=True), page(256, 192, tiled=True)))

    def slide(downsamples=(1.0, 2.0)):
        return MemorySlide(section(64, 48), path=path, downsamples=downsamples)

    return slide


def test_the_next_reader_opens_what_the_first_refuses_and_that_is_noted(readers, made):
    slide = made()
    readers({"r1": SlideError(f"{slide.path}: in strips. Rewrite it"), "r2": slide})
    assert open_slide(slide.path) is slide
    assert slide.notes == ("read with memory, not with OpenSlide: in strips",)


def test_a_reader_that_shows_all_levels_comes_before_one_that_shows_one(readers, made):
    flat, whole = made((1.0,)), made()
    readers({"r1": flat, "r2": MissingExtra("no fastslide"), "r3": whole})
    assert open_slide(flat.path) is whole
    assert whole.notes == ("read with memory: memory shows one of its 2 levels",)
    readers({"r1": flat, "r2": MissingExtra("no fastslide"), "r3": SlideError("no")})
    assert open_slide(flat.path) is flat
    assert flat.notes == ("one of its 2 levels is read, which is slower",)


def test_the_first_readers_reason_is_given_and_the_extra_that_may_help(readers, made):
    path = made().path
    readers({"r1": SlideError(f"{path}: broken"), "r2": SlideError("other")})
    with pytest.raises(SlideError, match=r"a\.svs: broken$"):
        open_slide(path)
    readers({"r1": SlideError(f"{path}: broken"), "r2": MissingExtra("pip install it")})
    with pytest.raises(SlideError, match=r"broken\. Or let another reader try: pip install it"):
        open_slide(path)
    path.write_bytes(b"text")  # no reader reads that
    with pytest.raises(SlideError, match=r"a\.svs: broken$"):
        open_slide(path)
    readers({"r1": MissingExtra("no OpenSlide"), "r2": made()})
    with pytest.raises(MissingExtra, match="no OpenSlide"):
        open_slide(path)


def test_tifffile_never_opens_formats_whose_first_page_is_the_label():
    """And where it reads, it comes before fastslide, which shows cut JPEG tiles grey."""
    for suffix, names in file_kinds.READERS.items():
        assert (file_kinds.TIFFFILE in names) == (suffix == ".svs")
    for names in (file_kinds.READERS[".svs"], file_kinds.OTHERS):
        assert names.index(file_kinds.TIFFFILE) < names.index(file_kinds.FASTSLIDE)


@pytest.mark.full
def test_a_jpeg_tiff_that_was_cut_off_has_no_grey_tile(tmp_path):
    path = write_wrong_header(tmp_path / "a.tif", section(512, 512))
    import tifffile

    with tifffile.TiffFile(path) as file:
        offsets, counts = file.pages[0].dataoffsets, file.pages[0].databytecounts
    data = bytearray(path.read_bytes())
    half = offsets[2] + counts[2] // 2
    data[half : offsets[3] + counts[3]] = b"\0" * (offsets[3] + counts[3] - half)
    path.write_bytes(data)
    slide = open_slide(path)
    assert slide.reader.startswith("tifffile")
    assert slide.read(0, 0, 0, 512, 256).std() > 0
    for x in (0, 256):
        with pytest.raises(SlideError, match="cannot be read"):
            slide.read(x, 256, 0, 256, 256)
    slide.close()


def test_a_url_is_not_opened(tmp_path):
    for url in ("s3://bucket/a.svs", "gcs://bucket/a.svs", "https://host/a.svs?sig=SECRET"):
        with pytest.raises(SlideError, match="remote slide") as caught:
            open_slide(url)
        assert "SECRET" not in str(caught.value)
