"""Public sets with outlines and points, on made-up copies of their layouts."""

import json
import shutil

import h5py
import numpy as np
import pytest
import small_sets

import pathencoder
from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import read_pictures

pytestmark = pytest.mark.full  # SciPy


def as_points(name, folder, **options):
    """A set of outlines, read again for points with their classes."""
    return read_pictures(pathencoder.open_dataset(name, folder, **options), task="points")


def rows(data, part):
    return [row for row in data if (row.fold or row.part) == part]


def test_glas_as_published_has_no_groups_and_says_why(tmp_path):
    data = pathencoder.open_dataset("glas", small_sets.glas(tmp_path))
    assert [len(rows(data, part)) for part in ("train", "testa", "testb")] == [2, 2, 1]
    assert not data.grouped
    assert any("patients 2 are in train and in a test part" in note for note in data.notes)
    opened = data.rows[0].load()
    assert opened.mpp == pytest.approx(0.62005)
    np.testing.assert_array_equal(opened.truth, small_sets.label_map())


def test_glas_with_patients_apart(tmp_path):
    small_sets.glas(tmp_path)
    data = pathencoder.open_dataset("glas", tmp_path, patients="apart")
    assert sorted(row.group for row in data) == ["1", "2", "3", "4"]
    assert any("1 train images of patients who are in a test part" in note for note in data.notes)
    (tmp_path / "Warwick_QU_Dataset/Grade.csv").unlink()
    assert len(pathencoder.open_dataset("glas", tmp_path)) == 5
    with pytest.raises(ConfigError, match=r"has no Grade\.csv"):
        pathencoder.open_dataset("glas", tmp_path, patients="apart")
    (tmp_path / "Warwick_QU_Dataset/train_2_anno.bmp").unlink()
    with pytest.raises(ConfigError, match=r"incomplete.*\n  train_2_anno\.bmp"):
        pathencoder.open_dataset("glas", tmp_path)


def test_monuseg_rasterises_outlines_with_patients_from_barcodes(tmp_path):
    data = pathencoder.open_dataset("monuseg", small_sets.monuseg(tmp_path))
    assert [row.group for row in data] == ["TCGA-18-5592", "TCGA-38-6178", "TCGA-2Z-A9J9"]
    assert [row.mpp for row in data] == [0.252, 0.252, 0.25]
    truth = data.rows[0].load().truth
    first = truth[3:13, 2:12]
    assert (first == first[0, 0]).all()
    assert np.count_nonzero(truth == first[0, 0]) == 100
    assert truth[23, 23] not in (0, truth[21, 21])  # the small one lies on the large one
    assert len(np.unique(truth)) == 4


def test_monuseg_of_30_or_of_37_images_is_whole(tmp_path):
    small_sets.monuseg(tmp_path)
    train = tmp_path / "MoNuSeg 2018 Training Data"
    for n in range(28):
        for folder, end in (("Tissue Images", "tif"), ("Annotations", "xml")):
            name = f"TCGA-18-5592-01Z-00-DX1.{end}"
            to = train / folder / f"TCGA-{n:02d}-0000-01Z-00-DX1.{end}"
            if end == "tif":
                small_sets.picture(to, 100 + n, (48, 40))
            else:
                shutil.copy(train / folder / name, to)
    notes = pathencoder.open_dataset("monuseg", tmp_path).notes
    assert not any(note.startswith("train:") for note in notes)
    assert any(note.startswith("test: 1 images (14 published)") for note in notes)


def test_pannuke_merges_its_channels_and_keeps_equal_numbers_apart(tmp_path):
    data = pathencoder.open_dataset("pannuke", small_sets.pannuke(tmp_path))
    assert [row.fold for row in data] == ["fold1"] * 2 + ["fold2"] * 2 + ["fold3"] * 2
    assert {row.part for row in data} == {"train"}
    opened = data.rows[0].load()
    assert opened.image.dtype == np.uint8
    assert len(np.unique(opened.truth)) == 3
    assert opened.truth[5, 5] != opened.truth[35, 22]
    assert not data.grouped


def test_pannuke_as_points_has_the_class_of_each(tmp_path):
    data = as_points("pannuke", small_sets.pannuke(tmp_path))
    opened = data.rows[3].load()
    assert [opened.names[number] for number in opened.classes] == ["neoplastic", "connective"]
    np.testing.assert_allclose(opened.truth, [[7.5, 7.5], [23.5, 34.5]])


def test_pannuke_unpacked_into_a_folder_each_and_of_another_length(tmp_path):
    for fold in (1, 2):
        small_sets.pannuke(tmp_path / f"fold_{fold}", folds=(fold,))
    assert len(pathencoder.open_dataset("pannuke", tmp_path)) == 4
    masks = tmp_path / "fold_2/Fold 2/masks/fold2/masks.npy"
    np.save(masks, np.load(masks)[:1])
    with pytest.raises(ConfigError, match="holds 1 label maps for the 2 images"):
        pathencoder.open_dataset("pannuke", tmp_path)
    masks.unlink()
    with pytest.raises(ConfigError, match=r"masks/fold2/masks\.npy"):
        pathencoder.open_dataset("pannuke", tmp_path)


def test_lizard_has_its_folds_and_classes_by_number(tmp_path):
    small_sets.lizard(tmp_path)
    data = as_points("lizard", tmp_path)
    assert [row.fold for row in data] == ["fold1", "fold2", "fold3"]
    opened = data.rows[0].load()
    names = [opened.names[number] for number in opened.classes]
    assert names == ["epithelial", "epithelial", "lymphocyte", "connective"]  # of 1, 2, 4, 7
    np.testing.assert_allclose(opened.truth[0], [10, 10])
    assert any("3 images (238 published)" in note for note in data.notes)


def test_lizard_with_a_missing_image_an_odd_class_and_damaged_labels(tmp_path):
    from scipy.io import savemat

    small_sets.lizard(tmp_path)
    image = tmp_path / "Lizard_Images2/glas_2.png"
    image.rename(tmp_path / "glas_2.png")
    with pytest.raises(ConfigError, match=r"Lizard_Images1 or Lizard_Images2/glas_2\.png"):
        pathencoder.open_dataset("lizard", tmp_path)
    (tmp_path / "glas_2.png").rename(image)
    labels = tmp_path / "Lizard_Labels/Labels"
    ids = {"id": [[1], [2], [4], [7]], "class": [[9]] * 4}
    savemat(labels / "glas_2.mat", {"inst_map": small_sets.label_map(), **ids})
    (labels / "consep_1.mat").write_bytes(b"no MATLAB")
    savemat(labels / "dpath_3.mat", {"inst_map": small_sets.label_map()})
    with pytest.raises(ConfigError) as caught:
        pathencoder.open_dataset("lizard", tmp_path)
    for words in (
        "has 3 problems",
        "consep_1.mat cannot be read",
        "glas_2.mat: a nucleus of the class 9; the set has 1, 2, 3",
        "dpath_3.mat: no variable 'id'; it has inst_map",
    ):
        assert words in str(caught.value)


def test_consep_merges_seven_classes_to_four(tmp_path):
    small_sets.consep(tmp_path)
    four = as_points("consep", tmp_path)
    assert four.classes == ("epithelial", "other", "spindle-shaped")
    opened = four.rows[0].load()
    found = [opened.names[number] for number in opened.classes]
    assert found == ["epithelial", "epithelial", "spindle-shaped", "other"]
    seven = as_points("consep", tmp_path, classes=7)
    opened = seven.rows[0].load()
    found = [opened.names[number] for number in opened.classes]
    assert found == ["healthy epithelial", "malignant epithelial", "muscle", "other"]
    outlines = pathencoder.open_dataset("consep", tmp_path)
    assert outlines.task == "nuclei"
    np.testing.assert_array_equal(outlines.rows[2].load().truth, small_sets.label_map())


def test_bcdata_points_are_x_and_y(tmp_path):
    data = pathencoder.open_dataset("bcdata", small_sets.bcdata(tmp_path))
    assert [row.part for row in data] == ["train", "train", "val", "test"]
    assert {row.stain for row in data} == {"ihc"}
    opened = data.rows[0].load()
    assert opened.truth.tolist() == [[5, 7], [30, 20], [12, 30]]
    assert [opened.names[number] for number in opened.classes] == [
        "positive",
        "positive",
        "negative",
    ]
    assert any("8 positive (62,623 published), 3 negative" in note for note in data.notes)
    (tmp_path / "BCData/annotations/validation/negative/0.h5").unlink()
    with pytest.raises(ConfigError, match=r"annotations/validation/negative/0\.h5"):
        pathencoder.open_dataset("bcdata", tmp_path)


def test_bcdata_points_outside_their_image_are_listed(tmp_path):
    small_sets.bcdata(tmp_path)
    with h5py.File(tmp_path / "BCData/annotations/test/positive/0.h5", "w") as file:
        file["coordinates"] = np.array([[400, 3]])
    with pytest.raises(ConfigError, match="points lie outside the image of 48 x 40 px"):
        pathencoder.open_dataset("bcdata", tmp_path)


def test_midogpp_boxes_are_two_corners_and_scales_those_of_the_scanner(tmp_path):
    data = pathencoder.open_dataset("midog++", small_sets.midogpp(tmp_path))
    assert [(row.part, row.mpp, row.group) for row in data] == [
        ("train", 0.23, "001"),
        ("test", 0.23, "002"),
        ("train", 0.25, "201"),
    ]
    opened = data.rows[0].load()
    assert opened.truth.tolist() == [[35, 45], [125.5, 105]]
    assert [opened.names[number] for number in opened.classes] == ["mitotic figure", "look-alike"]
    assert len(data.rows[1].load().truth) == 0


def test_midogpp_in_part_and_in_another_form(tmp_path):
    small_sets.midogpp(tmp_path, there=(1,), table_too=False)
    data = pathencoder.open_dataset("midog++", tmp_path)
    notes = " ".join(data.notes)
    assert "2 images are not there and left out: 002.tiff, 201.tiff" in notes
    assert "all images are of the part train" in notes
    file = tmp_path / "databases/MIDOG++.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["bbox"] = [100, 80, 50, 50]
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"annotation 1 .*two corners"):
        pathencoder.open_dataset("midog++", tmp_path)
    file.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        pathencoder.open_dataset("midog++", tmp_path)
