"""`pathencoder nuclei --adapt`: what it is trained on."""

import numpy as np
import pytest
from nuclei_case import nuclei
from synthetic_nuclei import tissue

pytestmark = pytest.mark.full


def test_adapt_sees_a_slide_as_its_regions_are_segmented(tmp_path, monkeypatch, capsys):
    from small_slides import write_tiff

    from pathencoder.cli import nuclei_adapt
    from pathencoder.nuclei import regions
    from pathencoder.nuclei.slide import SlideRegions
    from pathencoder.nuclei.weights import load_network
    from pathencoder.slides.reader import open_slide

    blue, _, _ = tissue((256, 512), nuclei=60, stain="ihc", positive=0.0)
    brown, _, _ = tissue((256, 512), nuclei=60, stain="ihc", positive=0.7)
    write_tiff(tmp_path / "s.tif", np.concatenate([blue, brown], 1), mpp=0.5)
    monkeypatch.setattr(regions, "REGION", 512)
    monkeypatch.setattr(regions, "_OVERLAP", 0)
    seen = []
    monkeypatch.setattr(
        nuclei_adapt, "_train", lambda maps, *_: seen.extend(maps) or load_network()
    )
    command = [tmp_path / "s.tif", "--as", "slides", "--out", tmp_path / "out", "--adapt"]
    assert nuclei(capsys, *command, mpp=None)[0] == 0
    slide = SlideRegions(open_slide(tmp_path / "s.tif"), mpp=None, stain=None)
    expected = [slide.calibration.calibration.maps(slide.read(r)) for r in slide.regions(None)]
    assert len(seen) == len(expected) == 2
    for maps, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(maps, wanted)
    slide.close()
