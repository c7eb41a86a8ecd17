"""Labelled images in: each form, and every bad row in one message."""

import numpy as np
import pytest
import small_tiles
import torch

from pathencoder.errors import ConfigError
from pathencoder.heads.data.check import train_part
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.data.read import read_dataset


def test_a_folder_per_class_with_groups_from_names(tmp_path):
    root = small_tiles.folder(tmp_path, patients=3)
    (root / "benign" / "notes.txt").write_text("x")
    data = read_dataset(root, groups=small_tiles.GROUPS)
    assert data.classes == ("benign", "malignant")
    assert len(data) == 12
    assert set(data.groups) == {"P0", "P1", "P2"}
    assert data.splits is None
    assert "notes.txt" in data.notes[0]


def test_folders_of_parts_above_the_classes(tmp_path):
    small_tiles.folder(tmp_path / "train")
    small_tiles.folder(tmp_path / "Test", patients=1)
    data = read_dataset(tmp_path, groups=lambda path: f"{path.parts[-3]}{path.name[:2]}")
    assert {data.part(row) for row in range(len(data))} == {"train", "test"}
    assert data.classes == ("benign", "malignant")
    assert len(data.rows_of("test")) == 4


def test_a_folder_beside_the_parts_is_no_class(tmp_path):
    for part in ("train", "test", "extra"):
        small_tiles.folder(tmp_path / part, patients=1, each=1)
    with pytest.raises(ConfigError, match=r"the parts test, train and beside them extra, which"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("empty", ["", "NaN", "NA"])
def test_rows_without_a_part_are_train_only_where_all_are(tmp_path, empty):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    parts = {"P0": "test", "P1": empty}
    rows = [(f"{c}/{p}_0.png", c, p, parts[p]) for c in ("benign", "malignant") for p in parts]
    words = "line 3: no part is named, others are of test: name one for every row, or for none"
    with pytest.raises(ConfigError, match=words):
        read_dataset(small_tiles.table(root, rows))
    paths, labels = [root / row[0] for row in rows], [row[1] for row in rows]
    with pytest.raises(ConfigError, match="no part is named"):
        read_dataset(paths, labels=labels, splits=["test", float("nan"), "test", None])
    data = read_dataset(paths, labels=labels, splits=[empty] * 4)
    assert data.splits == ("train",) * 4


def test_cells_that_name_no_class_and_no_patient(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    rows = [(f"{c}/P{p}_0.png", c, p) for c in ("benign", "malignant") for p in (0, 1)]
    rows[0] = (rows[0][0], "NA", "NA")
    with pytest.raises(ConfigError) as caught:
        read_dataset(small_tiles.table(root, rows, header="path,label,patient"))
    assert "line 2: the label is NA" in str(caught.value)
    assert "line 2: the group is empty" in str(caught.value)
    rows = [(path, "none" if label == "NA" else "unknown", "NA") for path, label, _ in rows]
    data = read_dataset(small_tiles.table(root, rows, header="path,label,patient"))
    assert data.classes == ("none", "unknown")
    assert data.groups is None


def test_an_empty_class_folder_is_named(tmp_path):
    small_tiles.folder(tmp_path)
    (tmp_path / "stroma").mkdir()
    with pytest.raises(ConfigError, match=r"no images in .*stroma"):
        read_dataset(tmp_path)


def test_a_pattern_of_groups_that_occurs_nowhere_is_refused(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2)
    with pytest.raises(ConfigError, match=r"groups='\(Q.*occurs in none of the 8 paths, benign/"):
        read_dataset(root, groups=r"(Q\d+)_")


def test_images_and_masks_are_no_classes(tmp_path):
    for name in ("train/images", "train/masks"):
        small_tiles.folder(tmp_path / "made").joinpath("benign").rename(tmp_path / "benign")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "benign").rename(tmp_path / name)
    with pytest.raises(ConfigError, match=r"folders images, masks, which are no classes.*nuclei"):
        read_dataset(tmp_path / "train")


def test_a_table_with_columns_of_other_names(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    rows = [(f"{c}/P{p}_0.png", c, f"P{p}") for c in ("benign", "malignant") for p in (0, 1)]
    file = small_tiles.table(root, rows, header="file;Class;patient".replace(";", ","))
    data = read_dataset(file)
    assert data.groups == ("P0", "P1", "P0", "P1")
    assert data.labels[2] == "malignant"
    assert data.notes == ("the column 'patient' was taken as the group",)
    with pytest.raises(ConfigError, match="no column 'case'; the columns are file, class, patient"):
        read_dataset(file, groups="case")


def test_all_bad_rows_are_in_one_message(tmp_path):
    root = small_tiles.folder(tmp_path, patients=3, each=1)
    rows = [
        ("benign/P0_0.png", "benign", "P0", "train"),
        ("benign/P0_0.png", "benign", "P0", "train"),
        ("missing.png", "benign", "P1", "train"),
        ("benign/P1_0.png", "", "P1", "train"),
        ("benign/P2_0.png", "NaN", "P2", "train"),
        ("malignant/P0_0.png", "malignant", "P9", "train"),
        ("malignant/P1_0.png", "malignant", "P9", "test"),
        ("malignant/P2_0.png", "Malignant", "", "test"),
        ("malignant", "malignant", "P8", "train"),
    ]
    with pytest.raises(ConfigError) as caught:
        read_dataset(small_tiles.table(root, rows))
    said = str(caught.value)
    assert "8 problems; nothing was encoded" in said
    for words in (
        "line 3: the same image as",
        "line 4: no such file",
        "line 5: the label is empty",
        "line 6: the label is NaN",
        "labels 'Malignant' and 'malignant' differ in case",
        "line 9: the group is empty",
        "group 'P9' is in train",
        "line 10: a folder, not an image",
    ):
        assert words in said


def test_a_group_in_two_folds_is_refused():
    images = tuple(small_tiles.tile("benign", n) for n in range(4))
    with pytest.raises(ConfigError, match=r"group 'a' is in fold1 .* and fold2"):
        read_dataset(
            list(images), labels=list("ABAB"), groups=list("aabb"), splits=["fold1", "fold2"] * 2
        )


def test_labels_of_any_kind_become_text():
    images = [small_tiles.tile("benign", n) for n in range(4)]
    data = read_dataset(images, labels=np.array([2.0, 10.0, 2.0, 10.0]), groups=[1, 2, 1, 2])
    assert data.classes == ("2", "10")
    with pytest.raises(ConfigError, match=r"images\[1\]: the label is NaN"):
        read_dataset(images, labels=[0.0, float("nan"), 1.0, None])


@pytest.mark.parametrize("other", ["p1", "P1 ", "\uff30\uff11"])
def test_groups_in_two_spellings_are_refused(other):
    images = [small_tiles.tile("benign", n) for n in range(4)]
    with pytest.raises(ConfigError, match=r"groups 'P1.*differ in case, spaces or Unicode"):
        read_dataset(images, labels=list("ABAB"), groups=["P1", "P1", other, "P2"])
    with pytest.raises(ConfigError, match="labels 'A' and 'A ' differ in case, spaces"):
        read_dataset(images, labels=["A", "A ", "B", "B"])


def test_labels_groups_and_splits_in_tensors():
    images = [small_tiles.tile("benign", n) for n in range(4)]
    numbers = torch.tensor([0, 1, 0, 1])
    data = read_dataset(images, labels=numbers, groups=torch.arange(4.0), splits=numbers)
    assert data.labels == data.splits == ("0", "1", "0", "1")
    assert data.groups == ("0", "1", "2", "3")
    data = read_dataset(images, labels=list(torch.tensor([0.5, 1, 0.5, 1])))
    assert data.classes == ("0.5", "1")
    with pytest.raises(ConfigError, match="labels=Tensor: a list with a value an image"):
        read_dataset(images, labels=numbers[:, None])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"labels": ["a"]}, "labels holds 1 values for 2 images"),
        ({}, "needs labels="),
        ({"labels": ["a", "b"], "groups": "P"}, "for a list of images give a list of groups"),
        ({"labels": ["a", "b"], "groups": lambda path: path}, "takes paths"),
        ({"labels": ["a", "b"], "groups": ["a"]}, "groups holds 1 values"),
        ({"labels": ["a", "b"], "splits": "part"}, "goes with a table"),
    ],
)
def test_lists_that_do_not_fit(arguments, words):
    images = [small_tiles.tile("benign", n) for n in range(2)]
    with pytest.raises(ConfigError, match=words):
        read_dataset(images, **arguments)


@pytest.mark.parametrize("pattern", ["P\\d+", "(", "(a)(b)"])
def test_an_expression_without_one_group(tmp_path, pattern):
    with pytest.raises(ConfigError, match="regular expression"):
        read_dataset(small_tiles.folder(tmp_path, patients=1), groups=pattern)


@pytest.mark.parametrize(
    ("labels", "groups", "splits", "words"),
    [
        (("a", "a"), None, None, "are of one class, 'a'"),
        (("a", "b"), ("P", "P"), None, "are of one group, 'P'"),
        (("a", "b"), None, ("val", "test"), "no train part to fit on, only: test, val"),
        (
            ("a", "b"),
            None,
            ("trn", "tst"),
            r"Call the train part train or training; given folds are numbers",
        ),
    ],
)
def test_train_parts_that_cannot_be_fitted(labels, groups, splits, words):
    images = tuple(small_tiles.tile("benign", n) for n in range(2))
    with pytest.raises(ConfigError, match=words):
        train_part(Dataset(images, labels, groups, splits))


def test_paths_that_are_no_data_set(tmp_path):
    with pytest.raises(ConfigError, match="no such folder or table"):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no folders"):
        read_dataset(tmp_path)
    with pytest.raises(ConfigError, match="data=int"):
        read_dataset(3, labels=["a"])
