import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from pathencoder.nuclei import outputs
from pathencoder.nuclei.measure import measure
from pathencoder.nuclei.segment import Nuclei
from pathencoder.stain import StainGuess

pytestmark = pytest.mark.full


def example(stain="ihc"):
    labels = np.zeros((40, 50), np.int32)
    labels[5:15, 10:30], labels[20:30, 35:50] = 1, 2
    image = np.full((40, 50, 3), 240, np.uint8)
    image[labels == 1], image[labels == 2] = (120, 70, 40), (110, 120, 190)
    return Nuclei(
        labels, measure(labels, image, mpp=0.5, stain=stain), StainGuess(stain, 1.0), 0.5
    ), image


def test_geojson_is_what_qupath_reads():
    nuclei, _ = example()
    found = json.loads("".join(outputs.geojson(nuclei, "tile", (1000, 2000))))
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"]["color"] == [250, 62, 62]
    assert [f["properties"]["classification"]["name"] for f in (first, second)] == [
        "Positive",
        "Negative",
    ]
    assert first["properties"]["measurements"]["Nucleus: Area µm^2"] == 50
    assert first["id"] != second["id"]
    (ring,) = first["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    x, y = np.array(ring).T
    # the outer edges of its pixels
    assert (x.min(), x.max(), y.min(), y.max()) == (1010, 1030, 2005, 2015)


def test_outline_holds_the_area_of_its_nucleus():
    nuclei, _ = example()
    for label, ring in outputs.contours(nuclei.labels):
        x, y = ring.T
        area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
        assert area == pytest.approx((nuclei.labels == label).sum(), abs=0.6)  # corners are cut


def test_table_is_a_row_for_each_nucleus():
    nuclei, _ = example()
    rows = list(csv.DictReader(io.StringIO(outputs.table(nuclei.table, (100, 0)))))
    assert [r["label"] for r in rows] == ["1", "2"]
    assert (rows[0]["x"], rows[0]["y"], rows[0]["area_px"]) == ("120", "10", "200")
    assert [r["positive"] for r in rows] == ["1", "0"]
    plain, _ = example("he")
    assert "dab_od" not in outputs.table(plain.table)


def test_all_files_are_written_and_labels_are_read_again(tmp_path):
    nuclei, image = example()
    files = outputs.write_all(nuclei, image, tmp_path, "tile")
    assert [f.name for f in files] == [
        "tile.labels.png",
        "tile.geojson",
        "tile.csv",
        "tile.overlay.png",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f.name for f in files)
    back = np.asarray(Image.open(files[0]))
    assert back.dtype == np.uint16
    assert (back == nuclei.labels).all()


def test_more_nuclei_than_16_bits_go_into_a_tiff(tmp_path):
    labels = np.arange(66_000, dtype=np.int32).reshape(300, 220)
    path = outputs.write_labels(labels, tmp_path, "many")
    assert path.name == "many.labels.tif"
    assert (np.asarray(Image.open(path)) == labels).all()


@pytest.mark.parametrize("strip", [1, 8, 1024])
def test_overlay_outlines_by_class_and_leaves_the_rest(monkeypatch, strip):
    nuclei, image = example()
    monkeypatch.setattr(outputs, "_STRIP", strip)
    picture = outputs.overlay(nuclei, image)
    assert tuple(picture[5, 15]) == outputs.POSITIVE
    assert tuple(picture[20, 40]) == outputs.NEGATIVE
    assert (picture[nuclei.labels == 0] == image[nuclei.labels == 0]).all()
    assert (picture[10, 20] == image[10, 20]).all()
    drawn = (picture != image).any(2).sum()
    # at the image's right side there is no outline
    assert drawn == (2 * (10 + 20) - 4) + (2 * (10 + 15) - 4 - 8)


def test_outlines_in_the_overlay_are_half_a_micrometre_wide():
    labels = np.zeros((60, 60), np.int32)
    labels[10:40, 10:40] = 1
    image = np.full((60, 60, 3), 200, np.uint8)
    for mpp, width in ((1.0, 1), (0.5, 1), (0.25, 2), (0.125, 4)):
        nuclei = Nuclei(
            labels, measure(labels, image, mpp=mpp, stain="he"), StainGuess("he", 1.0), mpp
        )
        drawn = (outputs.overlay(nuclei, image)[25] != image[25]).any(1)
        assert drawn.sum() == 2 * width


def test_facts_show_that_all_files_exist_and_are_of_one_run(tmp_path):
    nuclei, image = example()
    assert outputs.read_finished(tmp_path, "tile") is None
    facts = {"source": {"path": "M\u00fcller.png"}}
    outputs.write_all(nuclei, image, tmp_path, "tile", facts=facts)
    assert outputs.read_finished(tmp_path, "tile") == outputs.read_facts(tmp_path, "tile") == facts
    (tmp_path / "tile.csv").unlink()
    assert outputs.read_finished(tmp_path, "tile") is None
    outputs.write_all(nuclei, image, tmp_path, "tile", facts={"source": "another"})
    (tmp_path / "tile.geojson").write_text(
        "".join(outputs.geojson(nuclei, "tile", facts=facts)), encoding="utf-8"
    )
    assert outputs.read_finished(tmp_path, "tile") is None
    (tmp_path / "tile.geojson").unlink()
    assert outputs.read_facts(tmp_path, "tile") == {"source": "another"}


def test_no_nuclei_give_empty_files(tmp_path):
    labels, image = np.zeros((20, 20), np.int32), np.full((20, 20, 3), 240, np.uint8)
    empty = Nuclei(labels, measure(labels, image, mpp=0.5, stain="he"), StainGuess("he", 1.0), 0.5)
    files = outputs.write_all(empty, image, tmp_path, "none")
    assert json.loads(files[1].read_text())["features"] == []
    assert len(files[2].read_text().splitlines()) == 1


def test_geojson_is_small_and_describes_the_image():
    rows, columns = np.mgrid[:80, :80]
    labels = (np.hypot(rows - 40, columns - 40) < 20).astype(np.int32)
    image = np.full((80, 80, 3), 200, np.uint8)
    disk = Nuclei(labels, measure(labels, image, mpp=0.25, stain="he"), StainGuess("he", 0.9), 0.25)
    facts = {"mpp": 0.25, "mpp_source": "assumed", "stain": "he"}
    text = "".join(outputs.geojson(disk, "M\udcfcller", (20_001, 15_000), facts))
    found = json.loads(text)
    assert found["pathencoder"] == facts
    assert len(text.encode()) < 900
    (ring,) = found["features"][0]["geometry"]["coordinates"]
    assert all(2 * v == int(2 * v) for point in ring for v in point)
    assert np.min(ring, 0).tolist() == [20_022, 15_021]
    assert np.max(ring, 0).tolist() == [20_061, 15_060]


def test_table_describes_the_image_in_every_row():
    nuclei, _ = example("he")
    rows = list(
        csv.DictReader(
            io.StringIO(outputs.table(nuclei.table, facts={"mpp": 0.5, "mpp_source": "assumed"}))
        )
    )
    assert [(r["mpp"], r["mpp_source"]) for r in rows] == [("0.5", "assumed")] * 2


def test_a_label_map_takes_the_place_of_one_of_the_other_form(tmp_path):
    few, many = (np.array([[1, n]], np.int32) for n in (2, 70_000))
    for labels in (few, many, few):
        path = outputs.write_labels(labels, tmp_path, "x")
        assert list(tmp_path.iterdir()) == [path]
        assert outputs.labels_file(tmp_path, "x") == path


def test_of_two_label_maps_the_newer_one_counts(tmp_path):
    for end, time in ((".png", 1), (".tif", 2)):
        (tmp_path / f"x.labels{end}").touch()
        os.utime(tmp_path / f"x.labels{end}", (time, time))
    assert outputs.labels_file(tmp_path, "x") == tmp_path / "x.labels.tif"
