"""Counts of cells, the share of a class and its interval, and the files of points."""

import csv
import io
import json

import numpy as np
import pytest

from pathencoder.errors import ConfigError
from pathencoder.heads.data.point_tables import PointTable
from pathencoder.heads.dense.counts import count, read_counts
from pathencoder.heads.dense.point_files import (
    Found,
    Place,
    colour,
    geojson,
    overlay,
    table,
    write_points,
)
from pathencoder.heads.dense.scores import PointCounts, pooled_points
from pathencoder.metrics import DetectionScores

pytestmark = pytest.mark.full
CLASSES = ("negative", "positive")
LABELS = {
    "a": ["positive"] * 3 + ["negative"],
    "b": ["positive"] + ["negative"] * 3,
    "c": [],
    "d": ["positive"] + ["negative"] * 7,
}
POINTS = np.array([[9.5, 19.5, 0.9], [30, 40, 0.5]])
FOUND = Found(POINTS, ["positive", "negative"], np.array([[0.25, 0.75], [0.9, 0.1]]), CLASSES)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_counts_and_shares():
    counts = count(LABELS, CLASSES)
    assert counts.total() == {"negative": 11, "positive": 5}
    assert counts.shares("positive")[:2].tolist() == [0.75, 0.25]
    assert np.isnan(counts.shares("positive")[2])


def test_the_interval_is_over_images():
    share = count(LABELS, CLASSES).share("positive")
    assert share.value == pytest.approx(5 / 16)
    assert share.low < share.value < share.high
    # one image drawn alone gives its own share
    assert share.low >= 0.125
    assert share.high <= 0.75
    together = count(LABELS, CLASSES).share("positive", groups=["p"] * 4)
    assert together.low == together.high == together.value


def test_a_share_among_some_classes():
    counts = count({"a": ["positive", "negative", "stroma"]}, (*CLASSES, "stroma"))
    assert counts.share("positive", among=CLASSES).value == 0.5
    assert counts.share("positive").value == pytest.approx(1 / 3)


def test_the_table_of_counts():
    first, _, empty, _ = rows(count(LABELS, CLASSES).to_csv(positive="positive"))
    assert first == {
        "image": "a",
        "negative": "1",
        "positive": "3",
        "cells": "4",
        "positive_share": "0.7500",
    }
    assert (empty["cells"], empty["positive_share"]) == ("0", "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count({"a": ["other"]}, CLASSES), "a: cells of class 'other'"),
        (lambda: count(LABELS, CLASSES).share("other"), "no class 'other'"),
        (lambda: count(LABELS, CLASSES).share("positive", among=["negative"]), "not among"),
        (lambda: count({"a": []}, CLASSES).share("positive"), "no cells"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_points_of_a_region_lie_in_the_slide():
    place = Place.at((1000, 2000), 0.5, 0.25)
    # the centre of the first pixel at 0 becomes the outer edge at 0
    assert place.level0(POINTS).tolist() == [[1020, 2040], [1061, 2081]]


def test_geojson_is_what_qupath_reads():
    text = "".join(geojson(FOUND, "x", Place((100, 0), 2.0), {"mpp": 0.5}))
    parsed = json.loads(text)
    assert parsed["pathencoder"] == {"mpp": 0.5}
    first, second = parsed["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [120, 40]}
    assert first["properties"] == {
        "objectType": "detection",
        "measurements": {"Peak height": 0.9, "Class probability": 0.75},
        "classification": {"name": "positive", "color": [250, 62, 62]},
    }
    assert first["id"] != second["id"]
    assert text == "".join(geojson(FOUND, "x", Place((100, 0), 2.0), {"mpp": 0.5}))


def test_points_without_classes():
    plain = Found(POINTS)
    feature = json.loads("".join(geojson(plain, "x")))["features"][0]
    assert "classification" not in feature["properties"]
    assert list(rows(table(plain))[0]) == ["x", "y", "height"]


def test_an_image_without_cells(tmp_path):
    nothing = Found(np.zeros((0, 3)), [], np.zeros((0, 2)), CLASSES)
    outlines, listed = write_points(nothing, tmp_path, "x")
    assert json.loads(outlines.read_text())["features"] == []
    assert listed.read_text().splitlines() == ["x,y,height,class,p_negative,p_positive"]


def test_the_table_of_points(tmp_path):
    _, listed = write_points(FOUND, tmp_path, "x")
    assert rows(listed.read_text())[0] == {
        "x": "10.00",
        "y": "20.00",
        "height": "0.9000",
        "class": "positive",
        "p_negative": "0.2500",
        "p_positive": "0.7500",
    }


def test_written_points_are_read_as_labels_in_the_same_place(tmp_path):
    write_points(FOUND, tmp_path, "x")
    read = PointTable(tmp_path / "x.csv").read(0.25)
    np.testing.assert_allclose(read.points, FOUND.points[:, :2], atol=0.01)
    assert list(read.names) == list(FOUND.labels)


def test_the_overlay_shows_the_classes():
    image = np.full((60, 60, 3), 255, np.uint8)
    shown = overlay(FOUND, image, 0.5)
    assert tuple(shown[40, 30]) == colour("negative", CLASSES)
    assert tuple(shown[20, 10]) == colour("positive", CLASSES)
    assert (image == 255).all()


def test_classes_have_colours_of_their_own():
    names = ("epithelial", "inflammatory", "stromal")
    assert len({colour(name, names) for name in names}) == 3
    assert colour("unknown", names) == colour("unknown", ())


def test_malignant_regions_are_red_and_benign_ones_are_not():
    names = ("other", "Benign", "Malignant")
    (red, green, blue), benign = (colour(name, names) for name in ("Malignant", "Benign"))
    assert red > 2 * max(green, blue)
    assert benign[0] <= 2 * max(benign[1:])


def test_parts_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="2 points, but 1"):
        Found(POINTS, ["positive"])


def test_counts_of_written_tables(tmp_path):
    nothing = Found(np.zeros((0, 3)), [], np.zeros((0, 2)), CLASSES)
    (tmp_path / "a").mkdir()
    write_points(FOUND, tmp_path, "a/x10")
    write_points(nothing, tmp_path, "a/x9")
    (tmp_path / "summary.csv").write_text("image,cells\na,3\n")
    counts = read_counts(tmp_path)
    assert counts.images == ("a/x9", "a/x10")
    assert counts.classes == CLASSES
    assert counts.table.tolist() == [[0, 0], [1, 1]]


def test_classes_in_capitals_are_counted_once(tmp_path):
    names = ("CD3", "other")
    write_points(Found(POINTS, ["CD3", "CD3"], np.ones((2, 2)) / 2, names), tmp_path, "x")
    counts = read_counts(tmp_path)
    assert counts.classes == names
    assert counts.table.tolist() == [[2, 0]]


def test_a_folder_without_points_is_refused(tmp_path):
    write_points(Found(POINTS), tmp_path, "x")
    with pytest.raises(ConfigError, match="no table of points with classes"):
        read_counts(tmp_path)


def test_a_class_that_is_nowhere_true_has_no_f1():
    counts = [
        PointCounts(1, 2, 1, {"negative": DetectionScores.of(1, 1, 1)}),
        PointCounts(0, 1, 0, {"positive": DetectionScores.of(0, 1, 0)}),
    ]
    pooled = pooled_points(counts)
    assert np.isnan(pooled["f1 of positive"])
    assert pooled["mean class f1"] == pooled["f1 of negative"] == 1


def test_a_class_that_no_cell_has_keeps_its_spelling(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,class,p_Negative,p_Positive\n1,1,Negative,.9,.1\n")
    found = read_counts(tmp_path)
    assert found.classes == ("Negative", "Positive")
    assert found.share("Positive").value == 0
