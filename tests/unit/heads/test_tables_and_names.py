"""Columns of tables, spellings of numbers and names of files that data sets really have."""

import numpy as np
import pytest
import small_tiles

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.data.read import read_dataset
from pathencoder.images import iterate, list_images, open_image


def tiles(count=4):
    return [small_tiles.tile("benign", n) for n in range(count)]


def rows_of(root, *values):
    """A row an image of two classes, with these values behind path and label."""
    paths = [(f"{c}/P{p}_0.png", c) for c in ("benign", "malignant") for p in (0, 1)]
    return [(*path, *more) for path, more in zip(paths, values, strict=True)]


def test_an_empty_column_hides_no_groups_and_no_parts(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    values = [("C0", "", "", "train"), ("C1", "", "", "test")] * 2
    header = "path,label,case,patient,split,fold"
    file = small_tiles.table(root, rows_of(root, *values), header=header)
    data = read_dataset(file)
    assert data.groups == ("C0", "C1") * 2
    assert data.splits == ("train", "test") * 2
    assert data.notes == ("the column 'case' was taken as the group",)
    values = [("C0", "", "", "train"), ("C0", "", "", "test")] * 2
    small_tiles.table(root, rows_of(root, *values), header=header)
    with pytest.raises(ConfigError, match="group 'C0' is in train"):
        read_dataset(file)


def test_the_column_of_the_groups_is_named_where_others_could_be_it(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    values = [("P0", "S0"), ("P1", "S1")] * 2
    for column in ("patient", "group"):
        file = small_tiles.table(root, rows_of(root, *values), header=f"path,label,{column},slide")
        words = f"the column '{column}' was taken as the group, not slide (groups= or --groups"
        assert read_dataset(file).notes[0].startswith(words)
        assert read_dataset(file, groups=column).notes == ()


def test_a_column_named_part_is_no_split(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    values = [("colon",), ("lung",)] * 2
    file = small_tiles.table(root, rows_of(root, *values), header="path,label,part")
    assert read_dataset(file).splits is None
    assert read_dataset(file, splits="part").splits == ("colon", "lung") * 2


def test_missing_columns_say_which_names_are_read(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    rows = rows_of(root, *[()] * 4)
    with pytest.raises(
        ConfigError, match=r"columns are image_file, label\. Rename one \(path, file,"
    ):
        read_dataset(small_tiles.table(root, rows, header="image_file,label"))
    words = r"Rename one \(label, class, target\), or name it: labels= \(--label\)"
    with pytest.raises(ConfigError, match=words):
        read_dataset(small_tiles.table(root, rows, header="path,diagnosis"))


@pytest.mark.parametrize("other", ["7.0", "07", "7.", "+7"])
def test_one_number_in_two_spellings_is_one_patient_and_one_class(other):
    with pytest.raises(ConfigError) as caught:
        read_dataset(
            tiles(),
            labels=["7", other, "B", "B"],
            groups=["7", other, "8", "7a"],
            splits=["train", "test", "train", "train"],
        )
    said = str(caught.value)
    for what in ("labels", "groups"):
        assert f"{what} {' and '.join(map(ascii, sorted(['7', other])))} are one number" in said
    assert "is in train (images[0]) and test (images[1])" in said
    read_dataset(tiles(), labels=["7", "7.5", "-7", "70"], groups=["0", "0a", "00b", "1e1"])


def test_folds_that_pandas_wrote_as_decimals(tmp_path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    values = [("0.0",), ("1.0",)] * 2
    data = read_dataset(small_tiles.table(root, rows_of(root, *values), header="path,label,fold"))
    assert data.splits == ("0", "1") * 2
    assert {data.part(row) for row in range(4)} == {"train"}


def test_names_that_begin_with_a_tilde(tmp_path, monkeypatch):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    (root / "benign" / "P0_0.png").rename(root / "~a1.png")
    rows = rows_of(root, *[()] * 4)
    rows[0] = ("~a1.png", "benign")
    data = read_dataset(small_tiles.table(root, rows, header="path,label"))
    assert data.images[0] == root / "~a1.png"
    rows[0] = ("~nosuch/a.png", "benign")
    with pytest.raises(ConfigError, match=r"no such file .*~nosuch/a\.png"):
        read_dataset(small_tiles.table(root, rows, header="path,label"))
    with pytest.raises(ConfigError, match=r"no such file"):
        read_dataset(["~$lock.png", "~b.png"], labels=["a", "b"])
    with pytest.raises(ConfigError, match="no such folder or table"):
        read_dataset("~nosuch")
    monkeypatch.chdir(root)
    assert open_image("~a1.png").shape == (64, 64, 3)
    assert len(list(iterate(["~a1.png"]))) == len(list(iterate("~a1.png"))) == 1
    (root / "~new").mkdir()
    (root / "~a1.png").rename(root / "~new" / "~a2.png")
    assert len(list_images("~new")) == len(list(iterate("~new"))) == 1


@pytest.mark.parametrize("path", ["benign\\P0_0.png", "C:\\data\\P0_0.png", "C:/data/P0_0.png"])
def test_paths_of_windows_and_relative_paths_are_explained(tmp_path, path):
    root = small_tiles.folder(tmp_path, patients=2, each=1)
    rows = rows_of(root, *[()] * 4)
    rows[0], rows[1] = (path, "benign"), ("elsewhere.png", "benign")
    with pytest.raises(ConfigError) as caught:
        read_dataset(small_tiles.table(root, rows, header="path,label"))
    first, second = str(caught.value).splitlines()[1:]
    assert "no such file (backslashes and drive letters are not of paths on this system" in first
    assert first.endswith("(paths in a table are relative to its folder)")
    assert second.endswith("elsewhere.png")


def test_a_data_set_of_numbers_and_of_other_words():
    data = Dataset(tiles(), np.array([0, 1, 0, 1]), [1.0, 2, None, "3"], ("training", "dev") * 2)
    assert data.labels == ("0", "1", "0", "1")
    assert data.groups == ("1", "2", "", "3")
    assert data.splits == ("train", "val") * 2
    assert read_dataset(Dataset(tiles(), (1, 2, 10, 2))).classes == ("1", "2", "10")
    with pytest.raises(ConfigError, match=r"\(--dataset\) has its own groups"):
        read_dataset(data, groups=r"(P\d+)_")


def test_the_order_of_classes_does_not_depend_on_a_set():
    labels = tuple("./" * k + "a" for k in range(7))  # all one path, and so one key of an order
    assert Dataset(tiles(7), labels).classes == tuple(sorted(labels))
    data = Dataset(tiles(), ("a", "b", "a", "b"))
    assert data.classes is data.classes
    assert data.take([0]).classes == ("a",)
