"""Nuclei of a slide in Python: the same as in the files of the command."""

import csv
import logging

import numpy as np
import pytest
from PIL import Image
from small_slides import MemorySlide, write_tiff
from synthetic_nuclei import tissue

import pathencoder
from pathencoder.cli.main import run
from pathencoder.errors import ConfigError, ImageError, SlideError
from pathencoder.nuclei import regions
from pathencoder.slides.tissue import TissueMask

pytestmark = pytest.mark.full


def image():
    """H&E tissue with some IHC at its right side, 900 x 500 px of 0.5 um."""
    plain, _, _ = tissue((500, 700), nuclei=90, radius=7)
    brown, _, _ = tissue((500, 200), nuclei=20, radius=7, stain="ihc", positive=1)
    return np.concatenate([plain, brown], 1)


def test_regions_are_those_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "REGION", 550)
    file, out = tmp_path / "s.tif", tmp_path / "out"
    write_tiff(file, image(), mpp=0.5)
    found = list(pathencoder.segment_slide(file))
    assert [r.box for r in found] == [(0, 0, 678, 500), (422, 0, 478, 500)]
    assert run(["nuclei", str(file), "--as", "slides", "--out", str(out)]) == 0
    for region, name in zip(found, ("s_x0_y0", "s_x550_y0"), strict=True):
        with Image.open(out / f"{name}.labels.png") as labels:
            assert (np.asarray(labels) == region.nuclei.labels).all()
        rows = list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))
        places = [[float(row["x"]), float(row["y"])] for row in rows]
        assert len(region.nuclei) > 20
        assert np.allclose(region.centroids, places, atol=1e-3)
        assert {row["stain"] for row in rows} == {region.nuclei.stain.stain}
        assert region.image.shape == (*region.nuclei.labels.shape, 3)
    together = np.concatenate([r.centroids for r in found])
    assert len(np.unique(np.rint(together / 4), axis=0)) == len(together)  # each nucleus once


def test_a_small_fragment_is_a_region():
    """75 um of tissue are .5 % of a square of 4096 px at .25 um, and hold dozens of cells."""
    mask = np.zeros((256, 512), bool)
    mask[10:100, 10:100] = True
    mask[200:209, 400:409] = True  # px of 32 x 32
    tissue_mask = TissueMask(mask, (0, 0), (32.0, 32.0))
    found = regions.regions_with_tissue(tissue_mask, (0, 0, 512 * 32, 256 * 32))
    assert [region.core[:2] for region in found] == [(0, 0), (12288, 4096)]


@pytest.mark.parametrize("wide", [97, 100, 128])
def test_tissue_that_ends_where_a_region_begins_is_not_in_it(wide):
    scale = regions.REGION / wide  # not exact: sums of the mask are rounded
    mask = np.zeros((2 * wide, 2 * wide), bool)
    mask[:wide, :wide] = True
    found = regions.regions_with_tissue(
        TissueMask(mask, (0, 0), (scale, scale)), (0, 0, 8192, 8192)
    )
    assert [region.core[:2] for region in found] == [(0, 0)]


def test_regions_are_read_one_at_a_time_and_calibrated_together(monkeypatch):
    slide = MemorySlide(image())
    results = pathencoder.segment_slide(slide, regions=[(0, 0, 300, 300), [700, 0, 900, 300]])
    first = next(results)
    before = slide.reads
    second = next(results)
    assert slide.reads == before + 1
    assert second.box == (700, 0, 200, 300)
    assert any("clipped to 200 x 300 px" in note for note in second.nuclei.notes)
    assert first.nuclei.stain is second.nuclei.stain  # guessed once
    assert list(results) == []


def test_a_damaged_region_stops_or_is_skipped(caplog):
    slide = MemorySlide(image(), broken=((0, 0, 50, 50),))
    boxes = [(0, 0, 100, 100), (300, 300, 100, 100)]
    with pytest.raises(SlideError):
        list(pathencoder.segment_slide(slide, regions=boxes))
    with caplog.at_level(logging.WARNING, "pathencoder"):
        found = list(pathencoder.segment_slide(slide, regions=boxes, on_error="skip"))
    assert [r.box for r in found] == [(300, 300, 100, 100)]
    assert "region x0_y0_w100_h100 is skipped" in caplog.text


def test_settings_are_checked_at_once(tmp_path):
    slide = MemorySlide(image())
    for wrong in (
        {"stain": "pas"},
        {"mpp": "0.25"},
        {"mpp": 5},
        {"regions": [(0, 0, 10)]},
        {"regions": [(0, 0, 10, 2.5)]},
        {"on_error": "nan"},
        {"network": 3},
    ):
        with pytest.raises(ConfigError):
            pathencoder.segment_slide(slide, **wrong)
    with pytest.raises(SlideError):
        pathencoder.segment_slide(tmp_path / "missing.svs")
    coarse = MemorySlide(image(), properties={"openslide.mpp-x": "2.1", "openslide.mpp-y": "2.1"})
    with pytest.raises(ImageError, match=r"2\.1 um/px"):
        pathencoder.segment_slide(coarse)
    with pytest.raises(ImageError, match="lies outside"):
        next(pathencoder.segment_slide(slide, regions=[(9000, 0, 10, 10)]))
