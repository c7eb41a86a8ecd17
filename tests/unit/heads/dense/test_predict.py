"""What a fitted dense head finds in images, regions and slides, and the files of it."""

import csv
import dataclasses
import json

import labelled_tissue
import numpy as np
import pytest
import small_encoders
from PIL import Image
from small_slides import MemorySlide, write_tiff
from synthetic_nuclei import tissue

import pathencoder
from pathencoder.errors import ConfigError, ImageError, SlideError
from pathencoder.heads.dense.found import Found
from pathencoder.heads.dense.point_files import colour
from pathencoder.nuclei import regions

pytestmark = pytest.mark.full
MPP = labelled_tissue.MPP


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head that finds dark disks."""
    data = labelled_tissue.folder(tmp_path_factory.mktemp("data"), count=2)
    encoder = small_encoders.shared("cnn")
    options = {"steps": 80, "batch": 4, "side": 64, "lr": 1e-2, "frozen": True, "read_mpp": 0.5}
    return pathencoder.fit("nuclei", encoder, data, mpp=MPP, progress=False, **options)


def opened(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def scene():
    return tissue((192, 256), nuclei=20, radius=7, seed=7)


def test_images_in_any_form(head, scene, tmp_path):
    image, labels, _ = scene
    file = tmp_path / "images" / "a.png"
    labelled_tissue.save(file, image)
    alone = head.predict(image)[0]
    assert len(alone) == labels.max()
    for given in (file, str(file), file.parent, [image], Image.fromarray(image)):
        found = head.predict(given)
        assert np.array_equal(found[0].labels, alone.labels)
    assert head.predict(file.parent)[0].key == "a.png"
    assert len(head.predict([image, image])) == 2


def test_the_scale_is_stated_assumed_or_unknown(head, scene, tmp_path, monkeypatch):
    image, *_ = scene
    found = head.predict(image)[0]
    assert found.mpp == MPP
    assert any("0.5 um/px assumed" in note for note in found.notes)
    given = head.predict(image, mpp=0.5)[0]
    assert given.notes == ()
    large = Image.fromarray(image.repeat(2, 0).repeat(2, 1))
    large.save(tmp_path / "large.tif", resolution=40_000, resolution_unit=3)  # a centimetre
    for given in (tmp_path / "large.tif", [tmp_path / "large.tif"], tmp_path.glob("*.tif")):
        stated = head.predict(given)[0]
        assert stated.mpp == pytest.approx(0.25)
        assert len(stated) == len(found)
    record = dataclasses.replace(head.record, image_mpp=None)
    several = dataclasses.replace(head, record=record)
    with pytest.raises(ConfigError, match="several scales"):
        several.predict(image)
    Image.fromarray(image).save(tmp_path / "unknown.png")
    assert [one.name for one in several.predict(tmp_path, on_error="skip")] == ["large"]


def test_a_region_of_an_image_is_in_its_place(head, scene):
    image, *_ = scene
    whole = head.predict(image)[0]
    part = head.predict(image, region=(64, 32, 128, 96))[0]
    assert part.labels.shape == (96, 128)
    assert part.offset == (64, 32)
    inside = [p for p in part.points + part.offset if (abs(whole.points - p) < 2).all(1).any()]
    assert len(inside) > len(part) / 2
    with pytest.raises(ImageError, match="lies outside"):
        head.predict(image, region=(5000, 0, 10, 10))
    with pytest.raises(ConfigError, match="found 2 images"):
        head.predict([image, image], region=(0, 0, 10, 10))
    clipped = head.predict(image, region=(200, 0, 100, 50))[0]
    assert clipped.labels.shape == (50, 56)
    assert any("clipped" in note for note in clipped.notes)


def test_regions_of_a_slide_count_no_object_twice(head, scene, monkeypatch):
    image, *_ = scene
    monkeypatch.setattr(regions, "REGION", 96)
    monkeypatch.setattr(regions, "_OVERLAP", 48)
    slide = MemorySlide(image)
    whole = head.predict(image)[0]
    found = list(head.predict_slide(slide))
    assert len(found) == 6
    places = np.concatenate([one.points + one.offset for one in found])
    assert len(places) == len(whole)
    assert all((np.hypot(*(whole.points - p).T) < 1.5).sum() == 1 for p in places)
    given = list(head.predict_slide(slide, regions=[(10, 20, 60, 50)]))
    assert [one.labels.shape for one in given] == [(50, 60)]
    assert given[0].offset == (10, 20)


def test_objects_that_what_was_read_may_cut_are_said(head, scene, monkeypatch):
    monkeypatch.setattr(regions, "REGION", 96)
    notes = {}
    for overlap in (2, 48):  # nuclei have a radius of 7
        monkeypatch.setattr(regions, "_OVERLAP", overlap)
        found = list(head.predict_slide(MemorySlide(scene[0])))
        notes[overlap] = [note for one in found for note in one.notes if "may be cut" in note]
    assert notes[48] == []
    assert notes[2]
    assert "of the nuclei reach the edge of what was read" in notes[2][0]
    square = np.zeros((40, 40), np.int32)
    square[10:20, :5], square[30:, 30:] = 1, 2
    of = Found("glands", 0, np.zeros((40, 40, 3), np.uint8), 0.5, "he", square, table=object())
    assert of.cut_beyond((8, 8, 40, 40)) == 1  # the slide ends on the right and below
    assert of.cut_beyond((8, 8, 32, 32)) == 2
    assert of.cut_beyond((0, 0, 40, 40)) == 0


def test_a_region_that_cannot_be_read(head, scene, monkeypatch):
    monkeypatch.setattr(regions, "REGION", 96)
    monkeypatch.setattr(regions, "_OVERLAP", 0)
    slide = MemorySlide(scene[0], broken=((0, 0, 20, 20),), broken_levels=(0,))
    with pytest.raises(SlideError, match="cannot be read"):
        list(head.predict_slide(slide))
    assert len(list(head.predict_slide(slide, on_error="skip"))) == 5


def test_a_slide_needs_a_region_or_predict_slide(head, scene, tmp_path):
    write_tiff(tmp_path / "slide.tif", np.tile(scene[0], (4, 4, 1)), mpp=MPP)
    with pytest.raises(ConfigError, match="predict_slide"):
        head.predict(tmp_path / "slide.tif")
    found = head.predict(tmp_path / "slide.tif", region=(256, 192, 128, 96))
    assert found[0].offset == (256, 192)
    assert len(found[0])


def test_an_image_that_cannot_be_read(head, scene, tmp_path):
    labelled_tissue.save(tmp_path / "good.png", scene[0])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        head.predict(tmp_path)
    assert [one.key for one in head.predict(tmp_path, on_error="skip")] == ["good.png"]


@pytest.mark.parametrize("options", [{"views": 3}, {"stain": "x"}, {"on_error": "nan"}])
def test_settings_that_do_not_fit(head, scene, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        head.predict(scene[0], **options)


def test_the_files_of_nuclei(head, scene, tmp_path):
    found = head.predict(scene[0], region=(64, 32, 128, 96))[0]
    written = found.write(tmp_path / "out", "one")
    assert [file.name for file in written] == [
        "one.labels.png", "one.geojson", "one.csv", "one.overlay.png",
    ]  # fmt: skip
    features = json.loads(written[1].read_text())["features"]
    assert len(features) == len(found)
    assert features[0]["properties"]["objectType"] == "detection"
    corners = np.concatenate([np.array(f["geometry"]["coordinates"][0]) for f in features])
    assert corners.min(0)[0] >= 64
    assert corners.min(0)[1] >= 32
    with written[2].open() as stream:
        assert [float(row["x"]) for row in csv.DictReader(stream)] == pytest.approx(
            found.points[:, 0] + 64, abs=1e-3
        )
    with Image.open(written[3]) as picture:
        assert picture.size == (128, 96)


def test_images_of_one_name_do_not_replace_one_another(head, scene, tmp_path):
    for name in ("a.png", "A.tif", "sub/a.png", "b.png", "c.png", "c.png.png", "c.bmp"):
        labelled_tissue.save(tmp_path / "in" / name, scene[0])
    found = {one.key: one.write(tmp_path / "out")[1] for one in head.predict(tmp_path / "in")}
    names = {key: str(file.relative_to(tmp_path / "out")) for key, file in found.items()}
    assert names == {
        "a.png": "a.png.geojson",
        "A.tif": "A.tif.geojson",
        "sub/a.png": "sub/a.geojson",
        "b.png": "b.geojson",
        "c.png": "c.png.geojson",
        "c.png.png": "c.png.png.geojson",
        "c.bmp": "c.bmp.geojson",
    }
    assert all(file.is_file() for file in found.values())


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "sub/a.png"], ["a", "sub/a"]),
        (["sub/a.png"], ["a"]),
        (["a.png", "A.tif"], ["a.png", "A.tif"]),
        (["a.png", "a.png"], ["0", "1"]),
        (["a.png", None], ["0", "1"]),
    ],
)
def test_results_of_a_list_of_files_have_their_names(head, scene, tmp_path, given, names):
    for name in {name for name in given if name}:
        labelled_tissue.save(tmp_path / "in" / name, scene[0])
    images = [tmp_path / "in" / name if name else scene[0] for name in given]
    written = [one.write(tmp_path / "out")[1] for one in head.predict(images)]
    geojson = [file.relative_to(tmp_path / "out").as_posix() for file in written]
    assert geojson == [f"{name}.geojson" for name in names]


def points(**more):
    image = np.full((400, 500, 3), 220, np.uint8)
    places = np.array([[10.0, 20.5], [400, 300]])
    return Found(
        "points", 0, image, 0.25, "he", points=places, scores=np.array([0.5, 0.75]), **more
    )


def test_the_files_of_points(tmp_path):
    found = points(
        classes=("negative", "positive"),
        numbers=np.array([1, 0]),
        probabilities=np.array([[0.25, 0.75], [0.9, 0.1]]),
        offset=(1000, 2000),
    )
    written = found.write(tmp_path, "cells")
    assert [file.name for file in written] == ["cells.geojson", "cells.csv", "cells.overlay.png"]
    first, second = json.loads(written[0].read_text())["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [1010.0, 2020.5]}
    assert first["properties"]["classification"]["name"] == "positive"
    assert second["properties"]["measurements"] == {"Peak height": 0.75, "Class probability": 0.9}
    with written[1].open() as stream:
        row = next(csv.DictReader(stream))
    assert (row["x"], row["y"], row["class"], row["p_positive"]) == (
        "1010.00", "2020.50", "positive", "0.7500",
    )  # fmt: skip
    picture = opened(written[2])
    assert tuple(picture[20, 9]) == (250, 62, 62)
    assert tuple(picture[300, 400]) == (112, 112, 225)


def test_points_without_classes_and_without_points(tmp_path):
    header = points().write(tmp_path, "some")[1].read_text().splitlines()[0]
    assert header == "x,y,height"
    nothing = Found(
        "points", 0, np.zeros((30, 30, 3), np.uint8), 0.25, "he",
        points=np.zeros((0, 2)), scores=np.zeros(0),
    )  # fmt: skip
    written = nothing.write(tmp_path, "none")
    assert json.loads(written[0].read_text())["features"] == []


def test_the_files_of_pixels(tmp_path):
    labels = np.zeros((300, 400), np.int32)
    labels[20:80, 30:90] = 1
    labels[40:50, 40:60] = 0  # a hole
    labels[100:120, 100:140] = 2
    image = np.full((300, 400, 3), 200, np.uint8)
    classes = ("background", "tumour", "stroma")
    found = Found("pixels", 0, image, 0.5, "he", labels=labels, classes=classes, offset=(1000, 500))
    written = found.write(tmp_path, "areas")
    assert np.array_equal(opened(written[0]), labels)
    features = json.loads(written[1].read_text())["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == ["tumour", "stroma"]
    outer, hole = features[0]["geometry"]["coordinates"]
    assert {tuple(p) for p in outer} == {(1030, 520), (1090, 520), (1090, 580), (1030, 580)}
    assert {tuple(p) for p in hole} == {(1040, 540), (1060, 540), (1060, 550), (1040, 550)}
    with written[2].open() as stream:
        rows = {row["class"]: row for row in csv.DictReader(stream)}
    assert rows["stroma"]["area_px"] == "800"
    assert rows["stroma"]["area_um2"] == "200.0"
    picture = opened(written[3])
    assert (picture[250:] == 200).all()
    mixed = 0.6 * 200 + 0.4 * np.array(colour("stroma", classes))
    np.testing.assert_allclose(picture[110, 120], mixed, atol=1)
    part = found.within((20, 10, 60, 60))
    assert part.labels.shape == (50, 40)
    assert part.offset == (1020, 510)
