"""The table of adapted encoders: every fit is kept, test parts stay unread in choices."""

import json

import numpy as np
import pytest
import small_encoders
import small_tiles
from click.testing import CliRunner

from training.evaluation import adapt_table
from training.evaluation.encoders import Subject

pytestmark = pytest.mark.full


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command with one epoch a fit; returns its output, and the data sets that were given."""
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    root = small_tiles.folder(tmp_path / "tiles/amibr", patients=7)
    rows = [
        (path.relative_to(root), path.parent.name, group, "test" if group == "P6" else "train")
        for path in sorted(root.rglob("*.png"))
        for group in [path.name.split("_")[0]]
    ]
    small_tiles.table(root, rows, header="file,label,group,split")
    subject = Subject("small", small_encoders.shared("cnn"), "f" * 64)
    monkeypatch.setattr(adapt_table, "networks", lambda names: {subject.name: [subject]})
    real, given = adapt_table.adapt_encoder, []
    monkeypatch.setattr(
        adapt_table, "adapt_encoder", lambda *a, **k: given.append(a[1]) or real(*a, **k)
    )

    def call(*options):
        given.clear()
        fixed = ["small", "--data", str(tmp_path), "--results", str(tmp_path / "r.jsonl")]
        fixed += ["--sets", "amibr", "--how", "last", "--stages", "1", "--epochs", "1"]
        done = CliRunner().invoke(adapt_table.adapt, [*fixed, *options])
        assert done.exit_code == 0, done.output
        return done.output, list(given)

    return call


def test_the_test_part_is_read_once_for_each_seed(run, tmp_path):
    output, fits = run("--seeds", "2")
    assert len(fits) == 2
    assert "| amibr | test | small | last, 1 epochs, rate 0.0003 | AUROC | 1.000 |" in output
    line = json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])
    assert set(line["groups"]) == {"P6"}
    assert np.shape(line["probabilities"]) == (2, 4, 2)
    assert run("--seeds", "2") == (output, [])


def test_choices_read_folds_of_the_train_part_alone(run):
    output, fits = run("--seeds", "1", "--cv", "--folds", "2")
    assert len(fits) == 2
    assert "| amibr | folds | small |" in output
    for data in fits:
        assert "P6" not in data.groups
        held = {g for g, s in zip(data.groups, data.splits, strict=True) if s == "test"}
        assert held
        assert held.isdisjoint(
            g for g, s in zip(data.groups, data.splits, strict=True) if s == "train"
        )


def test_seeds_with_other_folds_are_compared_on_those_that_all_have():
    def line(seed, fold):
        options = {"how": "last", "epochs": 1, "rate": 1e-3, "seed": seed}
        p = [[[0.4, 0.6], [0.6, 0.4]], [[0.9, 0.1], [0.2, 0.8]]]
        key = {"set": "s", "part": "folds", "encoder": "e", "fold": fold, "options": options}
        groups = [f"{fold}a", f"{fold}b"]
        return {"key": key, "y": [0, 1], "groups": groups, "probabilities": p, "cpu_seconds": 60}

    shown = adapt_table.table([line(0, 0), line(0, 1), line(1, 0)])
    assert (
        "| balanced accuracy | 0.000 | 1.000 (0.000) | +1.000 [+1.000, +1.000] | 2 | 1.0 |" in shown
    )
    assert adapt_table.table([line(0, 0), line(1, 1)]).count("\n") == 1
