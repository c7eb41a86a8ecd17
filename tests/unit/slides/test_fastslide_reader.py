"""fastslide in a process of its own: time-outs, damage, and what it would show wrongly."""

import importlib.util
import json
import threading

import numpy as np
import pytest
import stub_child
from small_slides import section, write_tiff
from small_tiffs import write_wrong_header

from pathencoder.errors import MissingExtra, MissingMpp, SlideError
from pathencoder.slides import fastslide_reader
from pathencoder.slides.fastslide_reader import FastSlideReader
from pathencoder.slides.reader import open_slide


@pytest.fixture
def stub(tmp_path):
    slides = []

    def open_it(read_seconds=60.0, open_seconds=60.0, **facts):
        (tmp_path / "a.czi").write_text(json.dumps(facts))
        slides.append(
            FastSlideReader(
                tmp_path / "a.czi", module="stub_child", seconds=(open_seconds, read_seconds)
            )
        )
        return slides[-1]

    yield open_it
    for slide in slides:
        slide.close()


def test_coordinates_are_those_of_the_level_and_edges_are_white(stub):
    slide = stub()
    assert slide.read(240, 80, 1, 8, 4)[0, 0].tolist() == [1, 120, 40]
    edge = slide.read(996, 796, 0, 8, 8)
    assert edge[3, 3].tolist() == [0, 996 % 256, 796 % 256]
    assert (edge[4:] == 255).all()
    assert (edge[:, 4:] == 255).all()
    assert (slide.read(-50, -50, 0, 20, 20) == 255).all()


def test_a_read_that_hangs_is_stopped_and_the_next_one_works(stub):
    slide = stub(read_seconds=1.0)
    with pytest.raises(SlideError, match=r"region at \(200, 0\), level 0.*did not answer in 1 s"):
        slide.read(stub_child.SLEEPS, 0, 0, 8, 8)
    slide._seconds = (60.0, 60.0)
    assert slide.read(40, 0, 0, 8, 8)[0, 0, 1] == 40


def test_a_process_that_dies_costs_one_read(stub):
    slide = stub()
    with pytest.raises(SlideError, match="status 9"):
        slide.read(stub_child.DIES, 0, 0, 8, 8)
    assert slide.read(40, 0, 0, 8, 8)[0, 0, 1] == 40


def test_a_damaged_region_is_an_error_without_its_source_lines(stub):
    slide = stub()
    with pytest.raises(SlideError, match=r"cannot be read: Not a JPEG file$"):
        slide.read(stub_child.FAILS, 0, 0, 8, 8)
    assert slide.read(40, 0, 0, 8, 8)[0, 0, 1] == 40


def test_a_slide_that_keeps_hanging_is_given_up(stub, monkeypatch):
    monkeypatch.setattr(fastslide_reader, "_MOST_HANGS", 1)
    slide = stub(read_seconds=0.5)
    for words in ("did not answer", "was not read: fastslide has not answered 1 times"):
        with pytest.raises(SlideError, match=words):
            slide.read(stub_child.SLEEPS, 0, 0, 8, 8)


def test_an_opening_that_hangs_is_stopped(stub):
    with pytest.raises(SlideError, match="fastslide cannot open it: it did not answer"):
        stub(open_seconds=0.5, sleeps=True)


def test_several_threads_read_their_own_regions(stub):
    slide, wrong = stub(), []

    def read(left):
        for _ in range(5):
            wrong.append(slide.read(left, 0, 0, 16, 16)[3, 3, 1] != left)

    threads = [threading.Thread(target=read, args=(left,)) for left in range(10, 90, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40
    assert not any(wrong)


def test_a_scale_of_zero_is_unknown(stub):
    assert stub().mpp().value == 0.5
    assert stub().mpp().source == "fastslide mpp"
    with pytest.raises(MissingMpp, match="does not say"):
        stub(mpp=[0.0, 0.0]).mpp()
    with pytest.raises(MissingMpp, match="not the scale of a microscope"):
        stub(mpp=[352.0, 352.0]).mpp()


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"samples": "uint16"}, "uint16"),
        ({"channels": 4}, "4 channels"),
        ({"planes": 3}, "3 planes"),
    ],
)
def test_other_pixels_than_rgb_are_refused(stub, facts, word):
    assert word in stub(**facts).wrong()


def test_what_fastslide_opens_without_an_image_is_refused(stub):
    with pytest.raises(SlideError, match="no image"):
        stub(sizes=[], downsamples=[])


def test_after_close_nothing_is_read(stub):
    slide = stub()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read(0, 0, 0, 8, 8)


def test_without_fastslide_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.czi").write_bytes(b"x")
    with pytest.raises(MissingExtra, match=r"pip install 'pathencoder\[fastslide\]'"):
        open_slide(tmp_path / "a.czi")


@pytest.mark.full
def test_a_pyramid_is_read_as_by_openslide(tmp_path):
    pixels = section()
    slide = fastslide_reader.open_file(write_tiff(tmp_path / "a.tif", pixels))
    assert slide.reader.startswith("fastslide ")
    assert slide.downsamples == (1.0, 4.0)
    assert slide.mpp().value == pytest.approx(0.5, rel=1e-3)
    assert (slide.read(100, 50, 0, 64, 32) == pixels[50:82, 100:164]).all()
    there = open_slide(tmp_path / "a.tif")
    assert there.reader.startswith("OpenSlide ")
    assert (slide.read(400, 200, 1, 64, 32) == there.read(400, 200, 1, 64, 32)).all()
    slide.close()
    there.close()


@pytest.mark.full
def test_a_tiff_with_a_wrong_header_is_refused(tmp_path):
    """It shows the colours that the header says."""
    path = write_wrong_header(tmp_path / "a.tif", section(600, 460))
    slide = FastSlideReader(path)
    shown = slide.read(0, 0, 0, 600, 460)
    slide.close()
    assert np.abs(shown.mean((0, 1)) - section(600, 460).mean((0, 1))).max() > 20
    with pytest.raises(SlideError, match="colours would be false"):
        fastslide_reader.open_file(path)


@pytest.mark.full
def test_text_is_no_slide(tmp_path):
    (tmp_path / "a.svs").write_text("text")
    with pytest.raises(SlideError, match="no image"):
        fastslide_reader.open_file(tmp_path / "a.svs")
