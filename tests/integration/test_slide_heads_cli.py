"""`pathencoder fit` and `predict` with slide heads: from feature files to a table of slides."""

import csv
import json

import pytest
import small_bags
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.cli.main import run

pytestmark = pytest.mark.full


def arguments(root, out, *more):
    return [
        *("fit", "--head", "abmil", "--data", str(root / "slides.csv")),
        *("--features", str(root / "features"), "--out", str(out), "--device", "cpu"),
        *("-o", "hidden=16", "-o", "epochs=30", "-o", "seeds=1", "-o", "learning_rate=0.01"),
        *more,
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Feature files, and a head that was fitted on them by the command."""
    root = tmp_path_factory.mktemp("slides")
    small_bags.folder(root)
    assert run(arguments(root, root / "head")) == 0
    return root


@pytest.fixture
def call(capsys):
    def calling(*given):
        status = run(list(map(str, given)))
        return status, *capsys.readouterr()

    return calling


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_fit_reports_and_saves(place, call, tmp_path):
    status, out, err = call(*arguments(place, tmp_path / "head", "--json"))
    said = json.loads(out)
    assert status == 0
    assert (said["kind"], said["report"]["unit"], said["report"]["groups"]) == (
        "abmil", "slides", 12,
    )  # fmt: skip
    assert "loading" not in err  # no encoder is needed
    assert pathencoder.load_head(tmp_path / "head").classes == ("normal", "tumour")
    status, _, err = call(*arguments(place, tmp_path / "head"))
    assert status == 2
    assert "--overwrite replaces it" in err


def test_predict_writes_a_row_a_slide_and_lists_bad_ones(place, call, tmp_path):
    new = tmp_path / "new"
    for name, label in (("A", "normal"), ("B", "tumour")):
        small_bags.write(new, name, small_bags.rows(label, 77))
    small_bags.write(new, "empty", small_bags.rows("normal", 0)[:0])
    (new / "damaged.h5").write_bytes(b"nothing")
    single = place / "features/S1_0.h5"
    out = tmp_path / "out"
    gone = tmp_path / "gone.h5"
    status, text, _ = call("predict", place / "head", new, single, gone, "--out", out)
    assert status == 3
    assert "a abmil head" not in text
    found = rows_of(out / "new.csv")
    assert [(row["slide"], row["label"]) for row in found] == [("A", "normal"), ("B", "tumour")]
    assert float(found[0]["p_normal"]) > 0.5 > float(found[0]["p_tumour"])
    assert [(r["slide"], r["label"]) for r in rows_of(out / "S1_0.csv")] == [("S1_0", "tumour")]
    failed = rows_of(out / "failures.csv")
    assert [row["part"] for row in failed] == ["damaged", "empty", ""]
    assert "no tissue was found" in failed[1]["reason"]


def test_refusals(place, call, tmp_path):
    status, _, err = call("predict", place / "head", tmp_path, "--out", tmp_path / "out")
    assert status == 2
    assert "holds no feature files" in err
    line = ("predict", place / "head", place / "features", "--out", tmp_path / "out")
    status, _, err = call(*line, "--mpp", "0.5")
    assert status == 2
    assert "--mpp" in err
    other = small_bags.write(
        tmp_path / "f", "a", small_bags.rows("normal", 0), recipe={"sha256": "34" * 32}
    )
    status, text, _ = call("predict", place / "head", other, "--out", tmp_path / "out")
    assert status == 1
    assert "the head was fitted on those of small" in text
    small_bags.table(tmp_path, ["slide,label,patient", "gone,a,1", "S0_0,,2"])
    status, _, err = call(
        "fit", "--head", "slide-mean", "--data", tmp_path / "slides.csv", "--out", tmp_path / "h",
        "--features", place / "features",
    )  # fmt: skip
    assert status == 2
    assert "2 problems; nothing was fitted" in err
    status, _, err = call(
        "fit", "--head", "slide-mean", "--data", place / "slides.csv", "--out", tmp_path / "h"
    )
    assert status == 2
    assert "name their folder" in err
