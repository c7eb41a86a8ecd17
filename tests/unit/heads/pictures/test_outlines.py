"""Outlines of QuPath and ImageScope: which objects count, where they lie, which class they are."""

import json

import numpy as np
import pytest
import small_pictures as small
from small_pictures import feature, square

from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import read_pictures
from pathencoder.heads.dense.targets import IGNORED

pytestmark = pytest.mark.full


def read(folder, *features, task="nuclei", **arguments):
    small.write(folder / "a.png", small.image())
    small.geojson(folder / "a.geojson", *features)
    return read_pictures(folder, task=task, mpp=0.5, **arguments)


def test_polygons_with_holes_and_several_parts(tmp_path):
    data = read(
        tmp_path,
        feature("Polygon", [square(2, 3, 10), square(5, 6, 2)]),
        feature("MultiPolygon", [[square(20, 20, 4)], [square(30, 30, 4)]]),
    )
    found = data.rows[0].load().truth
    assert (found > 0).sum() == 100 - 4 + 16 + 16
    assert found[3, 2] == found[12, 11] > 0
    assert found[6, 5] == 0
    assert found[22, 22] == found[32, 32] > 0
    assert found[22, 22] != found[3, 2]
    assert data.rows[0].objects == 2


def test_small_objects_lie_on_large_ones(tmp_path):
    data = read(
        tmp_path, feature("Polygon", [square(10, 10, 4)]), feature("Polygon", [square(5, 5, 20)])
    )
    found = data.rows[0].load().truth
    assert np.unique(found, return_counts=True)[1].tolist() == [48 * 48 - 400, 384, 16]
    assert not any("lie under others" in note for note in data.notes)


def test_hidden_outlines_are_counted(tmp_path):
    same = feature("Polygon", [square(10, 10, 4)])
    data = read(tmp_path, same, same, feature("Polygon", [square(20, 20, 0.1)]))
    assert data.rows[0].load().truth.max() > 0
    assert any("2 outlines that hold no pixel or lie under others" in n for n in data.notes)


def test_detections_count_and_the_annotation_around_them_does_not(tmp_path):
    data = read(
        tmp_path,
        feature("Polygon", [square(0, 0, 40)]),
        feature("Polygon", [square(5, 5, 9)], object_type="cell", nucleusGeometry=None),
        feature(
            "Polygon",
            [square(20, 20, 12)],
            object_type="cell",
            nucleusGeometry={"type": "Polygon", "coordinates": [square(24, 24, 4)]},
        ),
    )
    found = data.rows[0].load().truth
    assert np.unique(found, return_counts=True)[1].tolist() == [48 * 48 - 97, 81, 16]
    assert any("1 x annotation" in note for note in data.notes)


def test_a_bare_list_and_a_file_alone(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    file = tmp_path / "a.png.geojson"
    file.write_text(json.dumps([feature("Polygon", [square(2, 2, 5)])]))
    for data in (tmp_path, file):
        found = read_pictures(data, task="nuclei", mpp=0.5).rows[0].load().truth
        assert (found == 1).sum() == 25


def test_points_are_counted_from_the_centre_of_the_first_pixel(tmp_path):
    data = read(
        tmp_path,
        feature("Point", [3.5, 4.5], "Tumor"),
        feature("MultiPoint", [[1, 2], [5, 6]], "Stroma"),
        feature("Polygon", [square(10, 20, 4)], "Tumor"),
        feature("Point", [8, 8], "Ignore*"),
        task="points",
    )
    found = data.rows[0].load()
    assert found.truth.tolist() == [[3, 4], [0.5, 1.5], [4.5, 5.5], [11.5, 21.5]]
    assert found.names == ("Stroma", "Tumor")
    assert found.classes.tolist() == [1, 0, 0, 1]
    assert any("Ignore* 1" in note for note in data.notes)


def test_points_alone_cannot_be_segmented(tmp_path):
    with pytest.raises(ConfigError, match="points alone; the task needs outlines"):
        read(tmp_path, feature("Point", [3, 4]))


def test_regions_are_classes_of_pixels(tmp_path):
    data = read(
        tmp_path,
        feature("Polygon", [square(0, 0, 20)], "Tumor"),
        feature("Polygon", [square(5, 5, 4)], "Ignore*"),
        feature("Polygon", [square(30, 30, 10)], "Stroma"),
        task="pixels",
    )
    assert data.classes == ("background", "Stroma", "Tumor")
    found = data.rows[0].load().truth
    assert [found[k, k] for k in (1, 6, 25, 35)] == [2, IGNORED, 0, 1]


def test_without_a_background_what_is_not_outlined_is_not_learned(tmp_path):
    data = read(
        tmp_path,
        feature("Polygon", [square(0, 0, 20)], "Tumor"),
        feature("Polygon", [square(30, 30, 10)], "Stroma"),
        feature("Polygon", [square(20, 0, 5)], "Other"),
        task="pixels",
        labels={"Tumor": "tumour", "Stroma": "stroma", "Other": None},
    )
    assert data.classes == ("tumour", "stroma")
    found = data.rows[0].load().truth
    assert [found[1, 1], found[35, 35], found[25, 5], found[1, 22]] == [0, 1, IGNORED, IGNORED]
    assert "pixels outside all outlines are not learned" in data.notes


def test_classes_without_a_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"labels beyond the classes \('Stroma'\)"):
        read(
            tmp_path,
            feature("Polygon", [square(0, 0, 20)], "Tumor"),
            feature("Polygon", [square(30, 30, 10)], "Stroma"),
            task="pixels",
            labels=["background", "Tumor"],
        )


def test_outlines_outside_their_image_are_refused_and_cut_ones_counted(tmp_path):
    with pytest.raises(ConfigError, match=r"1 of 2 outlines lie outside the image of 48 x 48"):
        read(
            tmp_path,
            feature("Polygon", [square(2, 2, 9)]),
            feature("Polygon", [square(900, 900, 9)]),
        )
    data = read(tmp_path, feature("Polygon", [square(-5, -5, 10)]))
    assert (data.rows[0].load().truth > 0).sum() == 25
    assert "1 outlines reach beyond their image and are cut at its border" in data.notes


@pytest.mark.parametrize(
    "content", ["{", '{"type": "Topology"}', '[{"type": "Feature", "geometry": null}]', "3"]
)
def test_other_json_is_named(tmp_path, content):
    small.write(tmp_path / "a.png", small.image())
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(ConfigError, match="no GeoJSON of outlines or points"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)


@pytest.mark.parametrize("geometry", [{"geometry": None}, {}])
def test_a_feature_without_a_place_is_named(tmp_path, geometry):
    small.write(tmp_path / "a.png", small.image())
    made = feature("Polygon", [square(2, 2, 5)], "Tumor")
    del made["geometry"]
    small.geojson(tmp_path / "a.geojson", made | geometry)
    with pytest.raises(ConfigError, match="the feature Tumor has no geometry: draw or remove it"):
        read_pictures(tmp_path, task="nuclei", mpp=0.5)


XML = """<Annotations MicronsPerPixel="0.25"><Annotation Name="">
<Attributes><Attribute Name="Epithelial"/></Attributes><Regions>
<Region NegativeROA="0"><Vertices><Vertex X="2" Y="3"/><Vertex X="12" Y="3"/><Vertex X="12" Y="13"/>
<Vertex X="2" Y="13"/></Vertices></Region>
<Region NegativeROA="1"><Vertices><Vertex X="5" Y="6"/><Vertex X="7" Y="6"/><Vertex X="7" Y="8"/>
<Vertex X="5" Y="8"/></Vertices></Region>
<Region><Vertices><Vertex X="1" Y="1"/></Vertices></Region>
</Regions></Annotation></Annotations>"""


def test_regions_of_imagescope(tmp_path):
    small.write(tmp_path / "a.png", small.image())
    (tmp_path / "a.xml").write_text(XML)
    data = read_pictures(tmp_path, task="nuclei", mpp=0.25)
    found = data.rows[0].load().truth
    assert (found > 0).sum() == 96
    assert found[3, 2] == 1
    assert found[6, 5] == 0
    assert any("1 x region of 1 points" in note for note in data.notes)
    assert read_pictures(tmp_path, task="points", mpp=0.25).classes == ("Epithelial",)


@pytest.mark.parametrize("content", ["<a/>", "<Annotations", "<!DOCTYPE x><Annotations/>"])
def test_other_xml_is_named(tmp_path, content):
    small.write(tmp_path / "a.png", small.image())
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(ConfigError, match="no annotations of Aperio ImageScope"):
        read_pictures(tmp_path, task="nuclei", mpp=0.25)
