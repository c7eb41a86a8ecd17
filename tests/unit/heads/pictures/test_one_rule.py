"""What one file leaves open is decided by the whole set: objects of QuPath, numbers of points."""

import numpy as np
import pytest
import small_pictures as small
from small_pictures import feature, square

from pathencoder.heads.data.pictures import read_pictures

pytestmark = pytest.mark.full
ROI = feature("Polygon", [square(0, 0, 40)], "Region")


def cell(left, top):
    return feature("Polygon", [square(left, top, 6)], "Cell", object_type="detection")


def outlines(folder, **of_images):
    for name, features in of_images.items():
        small.write(folder / f"{name}.png", small.image())
        small.geojson(folder / f"{name}.geojson", *features)
    return folder


def points(folder, **of_images):
    for name, text in of_images.items():
        small.write(folder / f"{name}.png", small.image())
        (folder / f"{name}.csv").write_text(text)
    return read_pictures(folder, task="points", mpp=0.5)


def test_an_image_without_cells_has_no_object_where_others_have_cells(tmp_path):
    cells = [ROI, cell(2, 2), cell(20, 20)]
    outlines(tmp_path, a=cells, b=[ROI], c=cells)
    note = "1 images have annotations of QuPath alone, others detections or cells: annotations are"
    for task in ("nuclei", "points"):
        data = read_pictures(tmp_path, task=task, mpp=0.5)
        assert [row.objects for row in data] == [2, 0, 2]
        assert any(said.startswith(note) for said in data.notes)
        assert "1 of 3 images hold no object" in data.notes
        loaded = data.rows[1].load().truth
        assert not np.any(loaded) if task == "nuclei" else len(loaded) == 0
    again = read_pictures(data, task="nuclei")
    assert [row.objects for row in again] == [2, 0, 2]
    regions = read_pictures(data, task="pixels")
    assert regions.classes == ("background", "Region")
    assert [row.objects for row in regions] == [1, 1, 1]


def test_detections_are_no_regions_where_others_have_annotations(tmp_path):
    outlines(tmp_path, a=[ROI, cell(2, 2)], b=[cell(2, 2)])
    data = read_pictures(tmp_path, task="pixels", mpp=0.5)
    assert data.classes == ("background", "Region")
    assert data.rows[1].load().truth.max() == 0
    assert any("detections or cells are left out in all" in note for note in data.notes)


@pytest.mark.parametrize("features", [[ROI], [cell(2, 2)]])
def test_objects_of_one_kind_count(tmp_path, features):
    outlines(tmp_path, a=features, b=features)
    data = read_pictures(tmp_path, task="nuclei", mpp=0.5)
    assert [row.objects for row in data] == [1, 1]
    assert not any("QuPath" in note for note in data.notes)


def test_measurements_of_images_without_cells(tmp_path):
    header = "Image,Object type,Centroid X px,Centroid Y px\n"
    rows = ["a.png,Annotation,9,9", "a.png,Detection,5,5", "b.png,Annotation,12,12"]
    rows.append("b.png,TMA core,5,5")
    for name in ("a.png", "b.png"):
        small.write(tmp_path / "one" / name, small.image())
    (tmp_path / "one" / "cells.csv").write_text(header + "\n".join(rows))
    data = read_pictures(tmp_path / "one" / "cells.csv", task="points", mpp=0.5)
    assert [row.objects for row in data] == [1, 0]
    assert len(data.rows[1].load().truth) == 0
    data = points(tmp_path / "two", a=header + rows[1], b=header + rows[2])
    assert [row.objects for row in data] == [1, 0]
    assert any("annotations are left out in all" in note for note in data.notes)


def test_labels_that_are_all_different_in_one_file_are_classes(tmp_path):
    head = "x,y,label\n"
    texts = {"a": "5,5,pos\n6,6,neg\n7,7,pos", "b": "5,5,pos\n9,9,neg", "c": "3,3,\n4,4,neg"}
    data = points(tmp_path, **{name: head + text for name, text in texts.items()})
    assert data.classes == ("neg", "pos")
    assert data.rows[1].load().classes.tolist() == [1, 0]
    assert "1 points have no class, others have one: only their places are learned" in data.notes


def test_labels_that_number_the_points_of_every_file_are_no_classes(tmp_path):
    head = "label,x,y\n"
    numbered = {"a": "1,5,5\n2,6,6\n4,7,7", "b": "1,5,5"}
    data = points(tmp_path, **{name: head + text for name, text in numbered.items()})
    assert data.classes == ()
    assert any("the column 'label' numbers the points" in note for note in data.notes)
    assert data.rows[0].load().classes is None
    named = read_pictures(tmp_path, task="points", mpp=0.5, labels={1: "a", 2: "b", 4: "c"})
    assert named.rows[0].load().classes.tolist() == [0, 1, 2]
    data = points(tmp_path, c=f"{head}1,5,5\n0,6,6\n0,7,7")  # one file shows that they are classes
    assert data.classes == ("0", "1", "2", "4")
    long = points(tmp_path / "long", a=f"{head}{'1' * 30},5,5\n{'2' * 4000},6,6")
    assert len(long.classes) == 2
    assert data.rows[1].load().classes.tolist() == [1]


def test_an_empty_column_of_classes_hides_no_other(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    table = tmp_path / "points.csv"
    table.write_text("image,x,y,class,type\na.png,5,5,,pos\na.png,6,6,,neg\n")
    assert read_pictures(table, task="points", mpp=0.5).classes == ("neg", "pos")
