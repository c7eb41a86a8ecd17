"""`pathencoder nuclei --adapt`: what it is trained on, and where it is saved."""

import numpy as np
import pytest
from nuclei_case import files, nuclei, picture
from synthetic_nuclei import tissue

from pathencoder.cli.main import run

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


@pytest.mark.parametrize("there", ["config.json", "model.safetensors", "an adapted network"])
def test_another_network_is_not_replaced(tmp_path, monkeypatch, capsys, there):
    from pathencoder.cli import nuclei_adapt
    from pathencoder.nuclei.weights import load_network, save_network

    image, folder = picture(tmp_path / "a.png"), tmp_path / "out/network"
    folder.mkdir(parents=True)
    if there == "an adapted network":
        save_network(folder, load_network(), {"seed": 7})
    else:
        (folder / there).write_text("{}")
    first = files(tmp_path / "out")
    monkeypatch.setattr(nuclei_adapt, "_train", None)
    command = ["nuclei", str(image), "--out", str(tmp_path / "out"), "--mpp", "0.25", "--adapt"]
    assert run(command) != 0
    assert "holds another network" in capsys.readouterr().err
    assert files(tmp_path / "out") == first


def test_a_file_that_cannot_be_read_is_left_out(tmp_path, monkeypatch, capsys):
    from pathencoder.cli import nuclei_adapt
    from pathencoder.errors import SlideError
    from pathencoder.nuclei.weights import load_network, read_about

    good, bad = (picture(tmp_path / "in" / name) for name in ("a.png", "b.png"))
    real = nuclei_adapt.Identity.facts.func

    def facts(self):
        if self._source.path.name == bad.name:
            raise SlideError(f"{bad}: cannot be read (Permission denied)")
        return real(self)

    monkeypatch.setattr(nuclei_adapt.Identity, "facts", property(facts))
    monkeypatch.setattr(nuclei_adapt, "_train", lambda *_: load_network())
    command = ["nuclei", str(good.parent), "--out", str(tmp_path / "out"), "--mpp", "0.25"]
    assert run([*command, "--adapt"]) == 3
    (seen,) = read_about(tmp_path / "out/network")["adapted_to"]
    assert seen["path"] == str(good)
    assert (tmp_path / "out" / "a.csv").exists()
