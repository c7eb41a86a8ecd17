"""Tiles around cells: which cells, which groups and which parts."""

import csv

import numpy as np
import pytest
from PIL import Image

from pathencoder.images import open_image
from training.evaluation.cells import cut_cells

pytestmark = pytest.mark.full


def annotated(root, parts, slide="unknown"):
    """An image a part, 100 px: cells in the middle, at the border and without a class."""
    rows = []
    for n, part in enumerate(parts):
        folder = root / part
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(n).integers(0, 255, (100, 100, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"img{n}.png")
        points = ["50,52,tumour", "30,40,lymphocyte", "3,50,tumour", "60,60,other", "70,40,"]
        (folder / f"img{n}.points.csv").write_text("x,y,class\n" + "\n".join(points) + "\n")
        rows.append([f"{part}/img{n}.png", part, "0.5", slide])
    with (root / "meta.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "split", "mpp", "slide_id"], *rows])
    return root


def cut(tmp_path, *parts, **options):
    table = cut_cells(annotated(tmp_path / "set", parts, **options), 1.0, tmp_path / "out")
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_tiles_are_around_cells_with_a_class_inside_the_image(tmp_path):
    rows = cut(tmp_path, "test", "train", "validation")
    assert sorted((r["label"], r["group"], r["split"]) for r in rows) == [
        ("lymphocyte", "img0", "test"),
        ("lymphocyte", "img1", "train"),
        ("tumour", "img0", "test"),
        ("tumour", "img1", "train"),
    ]
    tile = open_image(tmp_path / "out/test/tumour/img0_50_52.png")
    whole = open_image(tmp_path / "set/test/img0.png")
    assert np.array_equal(tile, whole[36:68, 34:66])


@pytest.mark.parametrize(
    ("parts", "options"), [(("all",), {}), (("train", "val"), {"slide": "TCGA-A7"})]
)
def test_one_part_and_shared_slides_are_read_by_folds(tmp_path, parts, options):
    assert {r["split"] for r in cut(tmp_path, *parts, **options)} == {"folds"}
