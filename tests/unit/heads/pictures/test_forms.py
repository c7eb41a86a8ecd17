"""Images with labels: the layouts of folders and tables that people have."""

import numpy as np
import pytest
import small_pictures as small

from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import read_pictures

pytestmark = pytest.mark.full


def test_folders_of_images_and_masks_below_parts(tmp_path):
    for part, stems in {"train": ("a", "b"), "testA": ("c",)}.items():
        for stem in stems:
            small.pair(tmp_path / part, stem)
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert [(row.path.stem, row.part) for row in data] == [
        ("c", "testa"),
        ("a", "train"),
        ("b", "train"),
    ]
    assert len(data.part("testA")) == 1
    with pytest.raises(ConfigError, match="no part 'val'; it has testa, train"):
        data.part("val")
    found = data.rows[0].load()
    assert np.array_equal(found.truth, small.labels())
    assert found.image.shape == (small.SIDE, small.SIDE, 3)
    assert (found.mpp, found.stain, found.group, found.classes) == (0.5, "he", "", None)
    assert data.rows[0].objects == 3
    assert any("no groups are known" in note for note in data.notes)


def test_a_folder_beside_the_parts_is_not_fitted_on(tmp_path):
    for part in ("train", "test", "external"):
        small.pair(tmp_path / part, part)
    with pytest.raises(ConfigError, match=r"1 images lie in no part, in .*external/images; others"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5, splits=["held out", "test", "train"])
    assert [row.part for row in data] == ["held out", "test", "train"]
    with pytest.raises(ConfigError, match="no part is named, others are of test"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, splits=["test", float("nan"), "test"])


@pytest.mark.parametrize("end", ["_mask", "_anno", ".labels", "-GT"])
def test_labels_beside_their_images(tmp_path, end):
    for stem in ("train_1", "train_2", "testA_1"):
        small.pair(tmp_path, stem, images=".", masks=".", end=end)
    (tmp_path / "Grade.csv").write_text("name,grade\ntrain_1,benign\n")
    data = read_pictures(tmp_path, task="glands", mpp=0.62)
    assert {row.path.stem: row.part for row in data} == {
        "train_1": "train",
        "train_2": "train",
        "testA_1": "testa",
    }
    assert any("beginnings of the images' names: testA, train" in note for note in data.notes)
    assert any("1 files of labels without an image (Grade.csv)" in note for note in data.notes)


@pytest.mark.parametrize(
    ("images", "masks", "parts"),
    [
        ("{}_images", "{}_masks", ["test", "train"]),
        ("Images/{}", "inst_maps/{}", ["test", "train"]),
        ("{}/Tissue Images", "{}/Annotations", ["test", "train"]),
        ("img fold {}", "gt_fold_{}", ["train", "train"]),
    ],
)
def test_names_of_folders_that_people_give(tmp_path, images, masks, parts):
    for part in (1, 2) if "fold" in images else ("train", "test"):
        small.pair(tmp_path, "a", images=images.format(part), masks=masks.format(part))
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert [row.part for row in data] == parts
    if "fold" in images:
        assert [row.fold for row in data] == ["fold 1", "fold 2"]


def test_images_without_labels_are_left_out_and_counted(tmp_path):
    small.pair(tmp_path, "a")
    small.write(tmp_path / "images" / "b.png", small.image())
    small.write(tmp_path / "overlays" / "a.png", small.image())
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert len(data) == 1
    assert "left out: 1 images without labels (b.png)" in data.notes


def test_the_folder_of_images_alone_is_refused(tmp_path):
    small.pair(tmp_path, "a")
    with pytest.raises(ConfigError, match="Give the folder above it"):
        read_pictures(tmp_path / "images", task="nuclei", mpp=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: no images"):
        read_pictures(tmp_path / "empty", task="nuclei", mpp=0.5)


def test_a_table_says_groups_parts_scales_and_stains(tmp_path):
    for stem in "abc":
        small.pair(tmp_path, stem)
    table = tmp_path / "set.csv"
    table.write_text(
        "image;labels;patient;split;mpp;stain\n"
        "images/a.png;masks/a.png;P1;train;~0,55;H&E (faded)\n"
        "images/b.png;masks/b.png;P2;fold2;0.25 (assumed 40x);Ki67 IHC\n"
        "images/c.png;masks/c.png;P3;Testing;unknown;PAS\n"
    )
    data = read_pictures(table, task="nuclei", mpp=1.0)
    assert [row.group for row in data] == ["P1", "P2", "P3"]
    assert [(row.part, row.fold) for row in data] == [
        ("train", ""),
        ("train", "fold2"),
        ("test", ""),
    ]
    assert [row.mpp for row in data] == [0.55, 0.25, 1.0]
    assert [row.stain for row in data] == ["he", "ihc", "he"]
    said = "\n".join(data.notes)
    assert "the column 'patient' was taken as the group" in said
    assert "2 images have the scale of their row" in said
    assert "1 images of the stain 'PAS' are read as 'he'" in said
    assert data.grouped


def test_a_table_without_a_column_of_labels_finds_them_beside_the_images(tmp_path):
    for stem in "ab":
        small.pair(tmp_path, stem, images="train", masks="train", end=".labels")
    table = tmp_path / "meta.csv"
    table.write_text("file,split,slide_id\ntrain/a.png,train,unknown\ntrain/b.png,train,unknown\n")
    data = read_pictures(table, task="nuclei", mpp=0.5)
    assert [row.objects for row in data] == [3, 3]
    assert [row.group for row in data] == [None, None]
    (tmp_path / "train" / "b.labels.png").unlink()
    with pytest.raises(ConfigError, match="line 3: no labels beside the image"):
        read_pictures(table, task="nuclei", mpp=0.5)


@pytest.mark.parametrize("folders", [("here", "here", ".labels"), ("images", "masks", "")])
def test_labels_beside_images_that_do_not_lie_below_the_table(tmp_path, folders):
    images, masks, end = folders
    for stem in "ab":
        small.pair(tmp_path / "data", stem, images=images, masks=masks, end=end)
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/some.csv"
    given = [tmp_path / "data" / images / "a.png", f"../data/{images}/b.png"]
    table.write_text("image\n" + "\n".join(map(str, given)))
    assert [row.objects for row in read_pictures(table, task="nuclei", mpp=0.5)] == [3, 3]


def test_a_pattern_of_groups_that_occurs_nowhere_is_refused(tmp_path):
    small.pair(tmp_path, "P1_a")
    with pytest.raises(ConfigError, match=r"groups=.*occurs in none of the 1 paths, .*P1_a"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5, groups=r"(Q\d+)_")


def test_groups_and_parts_by_argument(tmp_path):
    for stem in ("P1_a", "P2_a", "P2_b", "P3_a"):
        small.pair(tmp_path, stem)
    data = read_pictures(
        tmp_path,
        task="nuclei",
        mpp=0.5,
        groups=r"(P\d)_",
        splits=lambda path: "test" if path.stem.startswith("P2") else "fold1",
    )
    assert [row.group for row in data] == ["P1", "P2", "P2", "P3"]
    assert [row.part for row in data] == ["train", "test", "test", "train"]
    parts = read_pictures(tmp_path, task="nuclei", mpp=0.5, splits=["trn", "trn", "tst", "tst"])
    with pytest.raises(
        ConfigError, match=r"no part 'train'; it has trn, tst\. Call the train part"
    ):
        parts.part("train")


def test_a_set_is_read_again_for_another_task(tmp_path):
    small.pair(tmp_path, "a")
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert read_pictures(data, task="nuclei") is data
    points = read_pictures(data, task="points")
    found = points.rows[0].load()
    assert np.allclose(found.truth, [disk[:2] for disk in small.DISKS], atol=0.1)
    assert points.rows[0].mpp == 0.5


def test_groups_given_later_keep_the_names_of_the_classes(tmp_path):
    for stem in "abc":
        small.pair(tmp_path, stem, made=small.labels() > 0)
    data = read_pictures(tmp_path, task="pixels", mpp=0.5, labels={0: "rest", 1: "gland"})
    again = read_pictures(data, task="pixels", groups=["P", "P", "Q"], splits=["fold1"] * 3)
    assert again.classes == ("rest", "gland")
    assert [(row.group, row.fold) for row in again] == [(g, "fold1") for g in "PPQ"]
    with pytest.raises(ConfigError, match="group 'P' is in"):
        read_pictures(data, task="pixels", groups=["P"] * 3, splits=["train", "test", "test"])
    said = read_pictures(data, task="pixels", mpp=0.25)
    assert said.rows[0].mpp == 0.5
    assert any("not 0.25" in note for note in said.notes)


def test_points_in_tables_beside_images(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    (tmp_path / "a.csv").write_text("x,y,class\n3,4,tumour\n10.5,20,\n7,8,stroma\n1,1,Unclassified")
    data = read_pictures(tmp_path, task="points", mpp=0.5)
    found = data.rows[0].load()
    assert found.truth.tolist() == [[3, 4], [10.5, 20], [7, 8], [1, 1]]
    assert found.names == data.classes == ("stroma", "tumour")
    assert found.classes.tolist() == [1, -1, 0, -1]


def test_measurements_of_qupath_in_micrometres(tmp_path):
    for name in ("a.png", "b.png"):
        small.write(tmp_path / "images" / name, small.image())
    (tmp_path / "cells.tsv").write_text(
        "Image\tObject type\tClassification\tCentroid X µm\tCentroid Y µm\n"
        "a.png\tAnnotation\tRegion\t12\t12\n"
        "a.png\tDetection\tPositive\t5\t10\n"
        "a.png\tDetection\tNegative\t6\t10\n"
        "b.png\tDetection\tPositive\t1\t2\n",
        encoding="utf-8",
    )
    data = read_pictures(tmp_path / "cells.tsv", task="points", mpp=0.5)
    first = data.rows[0].load()
    assert first.truth.tolist() == [[9.5, 19.5], [11.5, 19.5]]
    assert data.classes == ("Negative", "Positive")
    assert len(data) == 2
    with pytest.raises(ConfigError, match="a table of points"):
        read_pictures(tmp_path / "cells.tsv", task="nuclei", mpp=0.5)


def test_an_empty_column_hides_no_groups_and_no_labels(tmp_path):
    lines = ["image,labels,mask,patient,case,split"]
    for stem, part in (("a", "train"), ("b", "train"), ("c", "test")):
        mask = small.pair(tmp_path, stem)
        lines.append(f"images/{stem}.png,,masks/{mask.name},,C{stem == 'b'},{part}")
    table = tmp_path / "set.csv"
    table.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="group 'CFalse' is in train"):
        read_pictures(table, task="nuclei", mpp=0.5)
    table.write_text("\n".join(lines[:3]))
    data = read_pictures(table, task="nuclei", mpp=0.5)
    assert [row.group for row in data] == ["CFalse", "CTrue"]
    assert "the column 'case' was taken as the group" in data.notes


def test_rows_of_points_that_contradict_each_other(tmp_path):
    for name in "ab":
        small.write(tmp_path / f"{name}.png", small.image())
    table = tmp_path / "points.csv"
    head, first = "image,x,y,split,group,mpp,stain\n", "b.png,5,5,train,g9,0.5,he\n"
    table.write_text(f"{head}a.png,1,1,test,g1,0.5,HE\n{first}a.png,2,2,train,g2,0.25,IHC\n")
    with pytest.raises(ConfigError) as caught:
        read_pictures(table, task="points")
    said = str(caught.value)
    assert "4 problems" in said
    assert "line 4: the part is 'train', in line 2 of the same image 'test'" in said
    for words in ("the group is 'g2'", "the mpp is '0.25'", "the stain is 'IHC'"):
        assert words in said
    table.write_text(f"{head}a.png,1,1,,,,\n{first}a.png,2,2,Testing,g1,0.50,H&E\n")
    row = next(row for row in read_pictures(table, task="points") if row.path.stem == "a")
    assert (row.part, row.group, row.mpp, row.stain) == ("test", "g1", 0.5, "he")


def test_names_that_are_too_long_are_missing_files(tmp_path):
    small.pair(tmp_path, "a")
    table = tmp_path / "set.csv"
    for header in ("image,labels\n{0}.png,masks/a.png", "image,x,y\n{0}.png,1,2"):
        table.write_text(header.format("a" * 5000))
        with pytest.raises(ConfigError, match="line 2: no such file"):
            read_pictures(table, task="points", mpp=0.5)


def test_arguments_that_do_not_fit(tmp_path):
    small.pair(tmp_path, "a")
    for arguments, words in (
        ({"task": "cells"}, "the tasks are glands, nuclei, points, pixels"),
        ({"labels": "mask"}, "goes with a table"),
        ({"splits": ["train", "test"]}, "splits holds 2 values for 1 images"),
        ({"stain": "pas"}, "'he' or 'ihc'"),
        ({"mpp": -1}, "is not a scale"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_pictures(tmp_path, **{"task": "nuclei", "mpp": 0.5, **arguments})
    with pytest.raises(ConfigError, match="no such folder"):
        read_pictures(tmp_path / "elsewhere", task="nuclei")
    with pytest.raises(ConfigError, match="give a folder, a table"):
        read_pictures([1], task="nuclei")
