"""New figures for the card of a bundled encoder: of its weights and readout, or none."""

import json
import shutil

import pytest
from click.testing import CliRunner
from paths import ROOT
from small_reports import encoder, of_spec, report, result

from pathencoder.pretrained.folder import read_spec, sha256_of
from training.evaluation.report_file import write_report
from training.publishing import card, refresh

pytestmark = pytest.mark.full

NAME = "pathencoder-tiny"


@pytest.fixture
def root(tmp_path):
    """A copy of the encoder's two folders."""
    for place in ("pathencoder/weights", "model_cards"):
        shutil.copytree(ROOT / place / NAME, tmp_path / place / NAME)
    return tmp_path


def command(root, monkeypatch, *options):
    given = dict(refresh.refresh.__kwdefaults__)
    monkeypatch.setattr(refresh.refresh, "__kwdefaults__", {**given, "root": root})
    return CliRunner().invoke(refresh.main, [str(o) for o in options])


def figures(path, **changes):
    """A report of the bundled weights."""
    spec = read_spec(ROOT / "pathencoder/weights" / NAME)
    mine = of_spec(spec, **changes)
    results = (result(value=0.8125), result(encoder="random", value=0.5, interval=None))
    write_report(path, report(encoders=(mine, encoder("random", "random", None)), results=results))
    return path


def test_figures_take_the_place_of_earlier_ones(root, tmp_path, monkeypatch):
    before = sha256_of(root / f"pathencoder/weights/{NAME}/model.safetensors")
    found = figures(tmp_path / "f.json")
    done = command(root, monkeypatch, NAME, "--figures", found, "--note", "By folds.")
    assert done.exit_code == 0, done.output
    folder = root / "pathencoder/weights" / NAME
    text = (folder / "README.md").read_text()
    assert "| polyps | test | 100 (10) | 0.812 [0.85, 0.95] / - | 0.500 / - |" in text
    assert "Command: `python -m training.evaluate all default --out runs/all`" in text
    assert "By folds." in text
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["row"] == "default"
    assert metrics["training"]["runs"] == 7  # what was not measured again stays
    assert card.card_of(NAME, root) == text
    assert sha256_of(folder / "model.safetensors") == before


def test_figures_of_other_weights_or_readout_are_refused(root, tmp_path, monkeypatch):
    text = (root / f"pathencoder/weights/{NAME}/README.md").read_text()
    transform = encoder().transform
    for changes, message in (
        ({"readout": "pool"}, "0 rows are this encoder with its readout stages:"),
        ({"transform": transform}, "0 rows are this encoder with its readout stages:"),
        ({"weights": encoder().weights}, "is stale: the encoder has sha256 414ff9edeea3"),
    ):
        done = command(
            root, monkeypatch, NAME, "--figures", figures(tmp_path / "f.json", **changes)
        )
        assert (done.exit_code, message in done.output) == (1, True), done.output
        assert "training.evaluate all pathencoder-tiny imagenet random" in done.output
    assert (root / f"pathencoder/weights/{NAME}/README.md").read_text() == text


def test_overlap_is_of_the_tiles_of_the_record(root, tmp_path, monkeypatch):
    counts = {"images": 9, "equal": 1, "near": 0, "groups": 2}
    about = json.loads((root / f"model_cards/{NAME}/provenance.json").read_text())
    content = {"tiles": about["corpus"]["digest"], "sets": {"polyps": counts}}
    file = tmp_path / "overlap.json"
    file.write_text(json.dumps(content))
    assert command(root, monkeypatch, NAME, "--overlap", file).exit_code == 0
    text = (root / f"pathencoder/weights/{NAME}/README.md").read_text()
    assert "1 equal, 0 nearly, of 9; 2 groups" in text
    file.write_text(json.dumps({**content, "tiles": "0" * 64}))
    done = command(root, monkeypatch, NAME, "--overlap", file)
    assert (done.exit_code, "is of other training tiles" in done.output) == (1, True)
    assert command(root, monkeypatch, "small", "--overlap", file).exit_code == 1
