"""Tissue as rings and as GeoJSON: the same mask comes back, and what QuPath exports is read."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pathencoder.errors import SlideError
from pathencoder.slides.rings import mask_of, rings_of
from pathencoder.slides.tissue import TissueMask
from pathencoder.slides.tissue_file import drawn_tissue, read_outlines, write_tissue

MASKS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def area(ring):
    x, y = ring.T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_rings_give_the_same_mask(mask):
    polygons = rings_of(mask)
    assert np.array_equal(mask_of(polygons, mask.shape), mask)
    assert sum(area(ring) for rings in polygons for ring in rings) == mask.sum()
    for outer, *holes in polygons:
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
    for ring in (ring for rings in polygons for ring in rings):
        assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1  # it does not touch itself


def test_a_square_has_four_corners_and_its_island_is_a_polygon_of_its_own():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    polygons = rings_of(mask)
    assert [[len(ring) for ring in rings] for rings in polygons] == [[5, 5], [5]]


def test_holes_that_touch_at_a_corner_are_two():
    mask = np.ones((4, 4), bool)
    mask[1, 1] = mask[2, 2] = False
    ((outer, *holes),) = rings_of(mask)
    assert [area(ring) for ring in (outer, *holes)] == [16, -1, -1]


def test_an_area_that_closes_at_a_corner_has_a_hole():
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], bool)
    assert [[area(ring) for ring in rings] for rings in rings_of(mask)] == [[8, -1]]


def test_an_even_odd_polygon_between_pixels():
    """A pixel counts where its centre lies inside; a triangle of 4 x 4 holds ten centres."""
    triangle = np.array([[0, 0], [4.2, 0], [0, 4.2]])
    assert mask_of([[triangle]], (4, 4)).sum() == 10
    assert not mask_of([[triangle + 100]], (4, 4)).any()


@pytest.fixture
def tissue():
    mask = np.random.default_rng(0).random((20, 30)) > 0.4
    return TissueMask(mask, (100, 50), (16.5, 16.25), ("pen is left out",), {"pen": ~mask})


def test_what_was_written_is_read_back_exactly(tissue, tmp_path):
    file = write_tissue(tissue, tmp_path / "s.geojson")
    read = drawn_tissue(tissue, read_outlines(file))
    assert np.array_equal(read.mask, tissue.mask)
    assert read.dropped == {}
    assert read.notes[0].startswith("areas drawn in s.geojson in place of the tissue found: Tissue")


def polygon(x, y, side, name=None, kind="Polygon"):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {"objectType": "annotation"}
    if name:
        properties["classification"] = {"name": name}
    coordinates = [ring] if kind == "Polygon" else [[ring]]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def point():
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 3]}}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def blank():
    return TissueMask(np.zeros((10, 10), bool), (0, 0), (10.0, 10.0))


@pytest.mark.parametrize(
    "data",
    [
        collection(polygon(20, 10, 40, "Tumor")),
        [polygon(20, 10, 40)],
        polygon(20, 10, 40, kind="MultiPolygon"),
        polygon(20, 10, 40)["geometry"],
        {
            "type": "GeometryCollection",
            "geometries": [polygon(20, 10, 40)["geometry"], point()["geometry"]],
        },
    ],
    ids=["collection", "list", "multipolygon", "geometry", "geometries"],
)
def test_every_shape_of_geojson(data, tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(data))
    mask = drawn_tissue(blank(), read_outlines(tmp_path / "a.geojson")).mask
    assert mask.sum() == 16
    assert mask[1:5, 2:6].all()


def test_ignored_areas_are_cut_out_and_points_are_noted(tmp_path):
    data = collection(polygon(20, 10, 40, "Tumor"), polygon(20, 10, 20, "Ignore*"), point())
    (tmp_path / "a.geojson").write_text(json.dumps(data))
    outlines = read_outlines(tmp_path / "a.geojson")
    assert drawn_tissue(blank(), outlines).mask.sum() == 12
    assert outlines.note.endswith("Ignore* 1, Tumor 1; points and lines in it are not used")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no GeoJSON"),
        ("[1, 2]", "no GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "ring of 2 points"),
        ('{"type": "Feature", "id": "7f", "geometry": null}', "the feature 7f has no geometry"),
        (json.dumps(collection()), "no polygon"),
        (json.dumps(collection(point())), "no polygon"),
        (json.dumps(collection(polygon(0, 0, 9, "Ignore*"))), "no polygon"),
    ],
)
def test_files_that_hold_no_areas(text, message, tmp_path):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(SlideError, match=message):
        read_outlines(tmp_path / "a.geojson")


def test_areas_of_another_slide_are_refused(tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(polygon(5000, 0, 40)))
    with pytest.raises(SlideError, match="outside the slide"):
        drawn_tissue(blank(), read_outlines(tmp_path / "a.geojson"))


def test_the_empty_file_of_a_slide_without_tissue_is_no_tissue(tmp_path):
    outlines = read_outlines(write_tissue(blank(), tmp_path / "a.geojson"))
    found = drawn_tissue(blank(), outlines)
    assert not found.mask.any()
    assert found.notes == ("no tissue was found when a.geojson was written: nothing is embedded",)
