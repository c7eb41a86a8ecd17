"""The paper's method in the training loop, and the comparison's bookkeeping."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_nuclei import tissue

from training import methods
from training.data.loader import TileBatch
from training.evaluation import nuclei
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
    folder = method().export(tmp_path / "export")
    assert json.loads((folder / "config.json").read_text())["parameters"] == 10_758
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
    lines = nuclei.table(made, {"stain": [rows], "worse": [np.subtract(rows, 0.1).tolist()] * 2})
    assert "| worse |" in lines[-1]
    assert "Dice -0.1000 (-0.1000 to -0.1000)" in lines[-1]


def test_scales_are_read_as_they_are_worded():
    assert [nuclei._number(t) for t in ("0.25 (assumed 40x)", "~0.55", "unknown", "")] == [
        0.25,
        0.55,
        None,
        None,
    ]
