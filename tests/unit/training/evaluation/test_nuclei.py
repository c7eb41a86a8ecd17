"""The paper's method in the training loop, and the comparison of nuclei on labelled sets."""

import errno
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from synthetic_nuclei import tissue

from pathencoder.errors import ConfigError, ImageError, StoreError
from training import methods
from training.data.loader import TileBatch
from training.evaluation import annotations, nuclei, nuclei_paper, nuclei_table
from training.evaluation.nuclei import NucleiSet
from training.methods.parts.patch_contrast import Separation
from training.methods.patch_contrast import PatchContrast, Settings

pytestmark = pytest.mark.full


def method(**settings):
    torch.manual_seed(0)
    return PatchContrast(Settings(crop=110, **settings), torch.Generator().manual_seed(0))


def batch(n=3):
    tiles = np.stack([tissue((160, 160), seed=s)[0] for s in range(n)]).transpose(0, 3, 1, 2)
    return TileBatch(
        torch.from_numpy(tiles.copy()), torch.zeros(n, dtype=torch.int64), torch.arange(n)
    )


def test_it_is_a_method_and_learns():
    contrast = method()
    assert isinstance(contrast, methods.Method)
    (view,) = contrast.views(batch())
    assert view.shape == (3, 3, 110, 110)
    loss, logs = contrast.loss([view], 0)
    loss.backward()
    assert logs["skipped"] == 0
    assert contrast.backbone.stem[0].weight.grad.abs().sum() > 0


def test_it_stops_when_the_rule_says_so():
    contrast, still = method(), method(stop=False)
    for m in (contrast, still):
        for step in range(60):
            m.last = Separation(0.1, 1.0)
            m.after_step(step)
    assert contrast.converged
    assert not still.converged


def test_export_says_what_it_is(tmp_path):
    folder = method().export(tmp_path / "export", {"licence": "unknown"})
    about = json.loads((folder / "config.json").read_text())
    assert (about["parameters"], about["licence"]) == (10_758, "unknown")
    assert (folder / "model.safetensors").exists()


def test_thresholds_are_scored_on_a_set(tmp_path):
    folder = tmp_path / "made" / "all"
    folder.mkdir(parents=True)
    for seed in range(2):
        image, labels, _ = tissue(seed=seed)
        Image.fromarray(image).save(folder / f"{seed}.webp", lossless=True)
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{seed}.labels.png")
    (tmp_path / "made" / "meta.csv").write_text(
        "file,mpp\nall/0.webp,0.5\nall/1.webp,0.5 (assumed)\n"
    )
    made = NucleiSet("made", "made/all")
    rows = nuclei.evaluate(made, tmp_path, nuclei.stain_score)
    assert np.shape(rows) == (2, 4)
    assert np.min(rows) > 0.8
    lines = nuclei_table.table(
        made, {"stain": [rows], "worse": [np.subtract(rows, 0.1).tolist()] * 2}
    )
    assert "| worse |" in lines[-1]
    assert "Dice -0.1000 (-0.1000 to -0.1000)" in lines[-1]


def test_an_image_without_a_row_is_refused(tmp_path):
    folder = tmp_path / "made" / "all"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), "white").save(folder / "0.png")
    (tmp_path / "made" / "meta.csv").write_text("\ufefffile;mpp\nall/1.png;0.5\n")
    with pytest.raises(ConfigError, match=r"no row with file all/0\.png"):
        list(nuclei.pictures(NucleiSet("made", "made/all"), tmp_path))


def test_points_of_any_spreadsheet_are_read(tmp_path):
    file = tmp_path / "a.points.csv"
    file.write_text("\ufeffX;Y;Class\n1,5;2;positive\n3;4;\n", encoding="utf-8")
    points, classes = annotations.read_points(tmp_path / "a.webp")
    assert points.tolist() == [[1.5, 2], [3, 4]]
    assert classes == ["positive", ""]
    file.write_text("x,y\n1,two\n")
    with pytest.raises(ConfigError, match="line 2"):
        annotations.read_points(tmp_path / "a.webp")


def test_a_damaged_label_map_is_named(tmp_path):
    (tmp_path / "a.labels.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    for name in ("a", "missing"):
        with pytest.raises(ImageError, match=f"{name}.labels.png"):
            annotations.open_labels(tmp_path / f"{name}.webp")


def test_unknown_rows_and_sets_are_refused(tmp_path):
    for option, value in (("--rows", "otsu,ows"), ("--sets", "monuseg")):
        refused = CliRunner().invoke(nuclei_table.nuclei, ["--data", str(tmp_path), option, value])
        assert refused.exit_code == 1
        assert f"{option}: no" in refused.output


def test_trained_weights_are_kept_whole_and_read_again(tmp_path, monkeypatch):
    images = [tissue((160, 160), seed=0)[0]]
    settings = Settings(crop=110, stop=False)
    monkeypatch.setattr(nuclei_paper, "EPOCHS", 1)
    trained = nuclei_paper.train_paper(images, tmp_path / "n/p.pt", seed=0, settings=settings)
    assert [p.name for p in (tmp_path / "n").iterdir()] == ["p.pt"]
    again = nuclei_paper.train_paper([], tmp_path / "n/p.pt", seed=0, settings=settings)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True)
    )
    monkeypatch.setattr(torch, "save", _break_half_way)
    with pytest.raises(StoreError):
        nuclei_paper.train_paper(images, tmp_path / "n/q.pt", seed=0, settings=settings)
    assert [p.name for p in (tmp_path / "n").iterdir()] == ["p.pt"]


def _break_half_way(state, path):
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_scales_are_read_as_they_are_worded():
    texts = ("0.25 (assumed 40x)", "~0.55", "unknown", "")
    assert [annotations.scale_of(text) for text in texts] == [0.25, 0.55, None, None]
