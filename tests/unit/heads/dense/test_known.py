"""Classes that a fold or the train part of a dense head does not know."""

import csv

import labelled_tissue
import numpy as np
import pytest
import small_encoders

import pathencoder
from pathencoder.errors import ConfigError
from pathencoder.heads.dense.known import notes_of_folds
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.dense.targets import IGNORED

pytestmark = pytest.mark.full
QUICK = {"steps": 2, "batch": 2, "side": 64, "mpp": 0.25, "progress": False}
COLUMNS = ("image", "x", "y", "class", "group", "split")


def table(root, classes, parts=None):
    """A table with an image, of a patient, for each list of classes of its cells."""
    rng = np.random.default_rng(0)
    rows = []
    for i, names in enumerate(classes):
        labelled_tissue.save(root / f"a{i}.png", rng.integers(0, 255, (96, 96, 3), np.uint8))
        part = "train" if parts is None else parts[i]
        rows += [(f"a{i}.png", 15 * n + 8, 40, name, f"P{i}", part) for n, name in enumerate(names)]
    with (root / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return root / "t.csv"


def fitted(data, **options):
    encoder = small_encoders.shared("cnn")
    return pathencoder.fit("points", encoder, data, groups="group", **{**QUICK, **options})


def test_a_class_of_one_patient_is_said_of_its_fold(tmp_path):
    data = table(tmp_path, [["pos", "rare"], ["pos", "neg"], ["pos", "neg"], ["pos", "neg"]])
    report = fitted(data, folds=4).report
    assert {"mean class f1", "f1 of pos", "f1 of neg"} <= set(report.scores)
    (note,) = [note for note in report.notes if "not known in fold" in note]
    assert note.startswith("the class 'rare' was not known in fold ")
    assert note.endswith(": its cells there were not scored")


def test_a_fold_of_one_class_is_said(tmp_path):
    report = fitted(table(tmp_path, [["pos", "neg"], ["pos"], ["pos"]]), folds=3).report
    assert np.isfinite(report.scores["f1"].value)
    (note,) = [note for note in report.notes if "fewer than two classes" in note]
    assert "was fitted on cells of fewer than two classes" in note


def test_pixels_of_a_class_that_a_fold_does_not_know_count_as_missed():
    image, names = np.zeros((4, 4, 3), np.uint8), ("background", "tumour", "rare")
    maps = [np.array([[0, number, IGNORED]]) for number in (1, 2, 1)]
    images = [Labelled(image, truth, 0.5, names=names) for truth in maps]
    folds = [([0, 2], [1]), ([0, 1], [2])]
    (note,) = notes_of_folds(images, folds)
    assert note == "the class 'rare' was not known in fold 1: its pixels there count as missed"


def test_a_held_out_part_with_a_new_class_of_cells_is_refused(tmp_path):
    classes = [["pos", "neg"], ["pos", "neg"], ["pos", "other"]]
    data = table(tmp_path, classes, ["train", "train", "test"])
    with pytest.raises(ConfigError, match="has the classes neg, pos, not other, which the part"):
        fitted(data, evaluate="test")
    held_out = fitted(data, evaluate="test", cells=False).held_out
    assert held_out.scores["f1"].value >= 0
    fitted(data)  # the part is not evaluated


def test_a_head_is_not_evaluated_on_classes_that_it_does_not_know(tmp_path):
    head = fitted(table(tmp_path, [["pos", "neg"], ["neg", "pos"]]))
    (tmp_path / "new").mkdir()
    other = table(tmp_path / "new", [["Pos", "neg"]])
    with pytest.raises(ConfigError, match="knows the classes of cells neg, pos, the data have"):
        head.evaluate(other, mpp=0.25)
    report = head.evaluate(other, mpp=0.25, labels={"Pos": "pos", "neg": "neg"})
    assert "f1 of pos" in report.scores
