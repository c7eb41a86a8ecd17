"""COCO's JSON: polygons, both forms of run lengths, boxes, keypoints, and where images lie."""

import json

import numpy as np
import pytest
import small_pictures as small

from pathencoder.errors import ConfigError
from pathencoder.heads.data.coco import decode_counts, mask_of_counts
from pathencoder.heads.data.pictures import read_pictures

pytestmark = pytest.mark.full
SIZE = [small.SIDE, small.SIDE]


def flat(left, top, size):
    return [value for point in small.square(left, top, size)[:-1] for value in point]


def runs_of(mask):
    """Run lengths down the columns, of 0 first."""
    ends = np.flatnonzero(np.diff(mask.T.ravel().astype(int))) + 1
    counts = np.diff([0, *ends, mask.size]).tolist()
    return [0, *counts] if mask[0, 0] else counts


def encode_counts(counts):
    """COCO's compressed form, as pycocotools' rleToString writes it."""
    text = ""
    for i, count in enumerate(counts):
        x, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits = x & 31
            x >>= 5
            more = x != -1 if bits & 16 else x != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


def write(file, annotations, *names, size=SIZE):
    images = [
        {"id": i, "file_name": name, "height": size[0], "width": size[1]}
        for i, name in enumerate(names or ("a.png",))
    ]
    categories = [{"id": 1, "name": "tumour"}, {"id": 2, "name": "stroma"}]
    file.parent.mkdir(parents=True, exist_ok=True)
    annotations = [{"id": n, "image_id": 0, **a} for n, a in enumerate(annotations)]
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return file


def test_run_lengths_of_pycocotools():
    # of a mask of 4 x 5 whose columns 1 to 3 hold rows 1 and 2
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert runs_of(mask) == [5, 2, 2, 2, 2, 2, 5]
    assert encode_counts(runs_of(mask)) == "5220003"
    assert decode_counts("5220003") == [5, 2, 2, 2, 2, 2, 5]
    assert np.array_equal(mask_of_counts(decode_counts(b"5220003"), (4, 5)), mask)


def test_run_lengths_of_any_mask():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (70, 90), (300, 7)):
        mask = rng.random(size) < rng.random()
        mask[:, : size[1] // 3] = True
        counts = runs_of(mask)
        assert decode_counts(encode_counts(counts)) == counts
        assert np.array_equal(mask_of_counts(counts, size), mask)
    for bad in ([3, 4], [-1, 10]):
        with pytest.raises(ValueError, match="run lengths"):
            mask_of_counts(bad, (3, 3))
    with pytest.raises(ValueError, match="end inside"):
        decode_counts("P")


def test_polygons_and_masks_become_objects(tmp_path):
    small.write(tmp_path / "images" / "a.png", small.image())
    runs = [runs_of(small.labels() == number) for number in (1, 2)]
    write(
        tmp_path / "annotations.json",
        [
            {"category_id": 1, "segmentation": [flat(0, 0, 4)]},
            {"category_id": 1, "segmentation": {"size": SIZE, "counts": runs[0]}},
            {"category_id": 2, "segmentation": {"size": SIZE, "counts": encode_counts(runs[1])}},
            {"category_id": 2, "segmentation": {"size": SIZE, "counts": runs[0]}, "iscrowd": 1},
        ],
    )
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    found = data.rows[0].load().truth
    truth = small.labels()
    expected = {16, int((truth == 1).sum()), int((truth == 2).sum())}
    assert set(np.unique(found, return_counts=True)[1][1:].tolist()) == expected
    assert np.array_equal(found > 0, (truth == 1) | (truth == 2) | (np.indices(SIZE) < 4).all(0))
    assert any("1 crowds" in note for note in data.notes)


def test_categories_are_classes_of_pixels(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    parts = [flat(0, 0, 4), flat(8, 8, 4)]
    write(
        tmp_path / "set.json",
        [
            {"category_id": 2, "segmentation": parts},
            {"category_id": 1, "segmentation": [flat(20, 20, 9)], "iscrowd": 1},
        ],
    )
    data = read_pictures(tmp_path / "set.json", task="pixels", mpp=0.5)
    assert data.classes == ("background", "stroma", "tumour")
    counts = np.bincount(data.rows[0].load().truth.ravel())
    assert counts.tolist() == [48 * 48 - 32 - 81, 32, 81]


def test_boxes_and_keypoints_are_points(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    write(
        tmp_path / "set.json",
        [
            {"category_id": 1, "bbox": [10, 20, 4, 6]},
            {"category_id": 2, "keypoints": [0, 0, 0, 7.5, 8.5, 2], "bbox": [0, 0, 9, 9]},
        ],
    )
    found = read_pictures(tmp_path / "set.json", task="points", mpp=0.5).rows[0].load()
    assert found.truth.tolist() == [[11.5, 22.5], [7, 8]]
    assert [found.names[i] for i in found.classes] == ["tumour", "stroma"]


def test_a_file_a_part(tmp_path):
    for part in ("train", "valid"):
        small.write(tmp_path / part / "a.png", small.image())
        annotation = {"category_id": 1, "segmentation": [flat(0, 0, 4)]}
        write(tmp_path / part / "_annotations.coco.json", [annotation])
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert [row.part for row in data] == ["train", "val"]


def test_what_is_not_coco_is_named(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    file = tmp_path / "set.json"
    annotation = {"category_id": 1, "segmentation": [flat(0, 0, 4)]}
    for annotations, arguments, words in (
        ([annotation], {"size": [50, 48]}, "is of 48 x 50 px, the image of 48 x 48"),
        ([{**annotation, "image_id": 7}], {}, "1 annotations are of images that it does not list"),
        ([{"category_id": 1, "segmentation": [[1, 2, 3]]}], {}, "annotation 0 is not as COCO"),
        ([{"category_id": 1}], {}, "annotation 0 is not as COCO"),
        ([{**annotation, "category_id": 7}], {}, "category_id 7 is not among the categories"),
        ([{**annotation, "category_id": float("inf")}], {}, "annotation 0 is not as COCO"),
        ([annotation], {"size": [float("inf")] * 2}, "not a COCO file"),
    ):
        write(file, annotations, **arguments)
        with pytest.raises(ConfigError, match=words):
            read_pictures(file, task="nuclei", mpp=0.5)
    write(file, [annotation], "missing.png")
    with pytest.raises(ConfigError, match=r"missing\.png: no such file"):
        read_pictures(file, task="nuclei", mpp=0.5)


@pytest.mark.parametrize("stated", [True, False])
def test_run_lengths_of_another_size_than_the_image_are_refused(tmp_path, stated):
    small.write(tmp_path / "a.png", small.image())
    runs = {"size": [24, 32], "counts": [0, 24 * 32]}
    annotations = [{"category_id": 1, "segmentation": runs}]
    file = write(tmp_path / "set.json", annotations, size=SIZE if stated else [None, None])
    with pytest.raises(ConfigError, match=r"of 32 x 24 px, the image (is )?of 48 x 48") as caught:
        read_pictures(file, task="nuclei", mpp=0.5)
    assert str(caught.value).count("set.json") == 1
    whole = {"size": SIZE, "counts": [0, 48, 48 * 47]}
    write(file, [{"category_id": 1, "segmentation": whole}, annotations[0]], size=[None, None])
    with pytest.raises(ConfigError, match=r"annotation 1 .*of 32 x 24 px, the image is of 48 x 48"):
        read_pictures(file, task="nuclei", mpp=0.5)


@pytest.mark.parametrize("categories", [None, []])
def test_categories_that_the_file_does_not_list(tmp_path, categories):
    small.write(tmp_path / "a.png", small.image())
    boxes = [{"category_id": k, "bbox": [10, 20, 4, 6]} for k in (1, "2")]
    file = write(tmp_path / "set.json", boxes)
    assert read_pictures(file, task="points", mpp=0.5).rows[0].load().classes.tolist() == [1, 0]
    for kept, names in ((2, ("1", "2")), (1, ())):
        content = json.loads(file.read_text())
        content |= {"categories": categories, "annotations": content["annotations"][:kept]}
        file.write_text(json.dumps(content))
        assert read_pictures(file, task="points", mpp=0.5).classes == names


@pytest.mark.parametrize("end", [40, 0])
def test_a_damaged_file_in_a_folder_is_named(tmp_path, end):
    for name in ("a", "b"):
        small.write(tmp_path / f"{name}.png", small.image())
        outline = {"category_id": 1, "segmentation": [flat(5, 5, 20)]}
        write(tmp_path / f"{name}_set.json", [outline], f"{name}.png")
    assert len(read_pictures(tmp_path, task="nuclei", mpp=0.5)) == 2
    file = tmp_path / "b_set.json"
    file.write_text(file.read_text()[:end])
    for given in (tmp_path, file):
        with pytest.raises(ConfigError, match=r"b_set\.json: not whole JSON \(.*line 1 column"):
            read_pictures(given, task="nuclei", mpp=0.5)
    file.write_text("{'settings': of another program")
    assert len(read_pictures(tmp_path, task="nuclei", mpp=0.5)) == 1
