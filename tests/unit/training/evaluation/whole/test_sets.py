"""Sets of one's own: what their columns mean, and what is said where some are missing."""

import re

import pytest
from small_tile_sets import write_set

from training.evaluation.whole.sets import open_all

pytestmark = pytest.mark.full


def opened(tmp_path):
    return open_all(tmp_path / "data", [], tmp_path)


def test_stains_are_measured_apart(tmp_path):
    write_set(tmp_path / "data/mixed", n=36, stain=lambda i: "IHC" if i // 3 % 2 else "H&E")
    found = opened(tmp_path).sets
    assert [(s.row.name, s.row.stain) for s in found] == [("mixed-he", "he"), ("mixed-ihc", "ihc")]
    assert [len(s.probe.labels.files) for s in found] == [18, 18]
    assert found[0].row.sha256 != found[1].row.sha256


def test_tiles_without_groups_are_groups_and_that_is_said(tmp_path):
    write_set(tmp_path / "data/mine", without=("group", "stain", "centre"))
    (s,) = opened(tmp_path).sets
    assert s.row.groups == "image"
    assert any("figures are too good and too certain" in note for note in s.row.notes)
    assert any("taken as H&E" in note for note in s.row.notes)
    assert s.centres is None


def test_the_hash_is_of_labels_and_images(tmp_path):
    folder = write_set(tmp_path / "data/mine")
    first = opened(tmp_path).sets[0].row.sha256
    assert opened(tmp_path).sets[0].row.sha256 == first
    (folder / "0.png").write_bytes((folder / "2.png").read_bytes())
    assert opened(tmp_path).sets[0].row.sha256 != first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ("dark",)}, "a probe needs two classes"),
        ({"test": False, "group": lambda i: "p"}, "all rows are of one group"),
        ({"stain": lambda i: "purple"}, "the stain 'purple' is none of he, ihc"),
        ({"split": lambda i: "train" if i % 2 else "test"}, "is in test and in train"),
        ({"without": ("label",)}, "lacks the column 'label'"),
        (
            {"label": lambda i: "bright" if i >= 18 else "dark"},
            r"all rows of train are \['dark'\]",
        ),
    ],
)
def test_a_wrong_table_is_left_out_with_its_reason(tmp_path, wrong, message):
    write_set(tmp_path / "data/good")
    write_set(tmp_path / "data/wrong", **wrong)
    found = opened(tmp_path)
    assert [s.row.name for s in found.sets] == ["good"]
    assert found.broken == ["wrong"]
    assert re.search(message, next(a.reason for a in found.absent if a.set == "wrong"))
