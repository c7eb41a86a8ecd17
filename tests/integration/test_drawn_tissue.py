"""`encode --save-tissue` and `--tissue`: areas that a person drew decide what is embedded."""

import json

import numpy as np
import pytest
import small_encoders
from small_slides import section, write_tiff

from pathencoder.cli.main import run
from pathencoder.features.store import read_features

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "small"
    small_encoders.encoder("cnn").save_pretrained(path)
    return path


def test_drawn_areas_take_the_place_of_the_tissue(tmp_path, folder, capsys):
    write_tiff(tmp_path / "section.tiff", section(), mpp=0.25)
    out, again = tmp_path / "out", tmp_path / "again"
    slide = [str(tmp_path / "section.tiff"), "--as", "slides", "--encoder", str(folder)]
    assert run(["encode", *slide, "--out", str(out), "--save-tissue"]) == 0
    saved = out / "tissue/section.geojson"
    whole = read_features(out / "section.h5")

    command = ["encode", *slide, "--out", str(again)]
    assert run([*command, "--tissue", str(saved.parent)]) == 0
    assert np.array_equal(read_features(again / "section.h5").coords, whole.coords)
    assert "areas drawn in section.geojson" in capsys.readouterr().out

    side = int(whole.attributes["patch_size_level0"])
    x, y = (int(v) for v in whole.coords[len(whole.coords) // 2])
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    drawn = tmp_path / "one.geojson"
    drawn.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    command += ["--tissue", str(drawn), "--min-tissue", "0.9"]
    assert run(command) == 1  # other areas: nothing is overwritten
    assert "tissue" in capsys.readouterr().out
    assert run([*command, "--overwrite"]) == 0
    found = read_features(again / "section.h5")
    assert found.coords.tolist() == [[x, y]]
    assert np.array_equal(found.rows, whole.rows[(whole.coords == (x, y)).all(1)])


def test_a_folder_without_areas_of_any_slide_is_refused(tmp_path, capsys):
    write_tiff(tmp_path / "section.tiff", section(), mpp=0.25)
    (tmp_path / "areas").mkdir()
    command = ["encode", str(tmp_path / "section.tiff"), "--as", "slides"]
    command += ["--out", str(tmp_path / "out"), "--tissue", str(tmp_path / "areas")]
    assert run(command) == 2
    assert "such as section.geojson" in capsys.readouterr().err


@pytest.mark.parametrize("mpp", [0.25, 0.499])  # sides of 128 px, and of 64.13
def test_given_coordinates_are_embedded(tmp_path, folder, capsys, mpp):
    write_tiff(tmp_path / "section.tiff", section(), mpp=mpp)
    slide = [str(tmp_path / "section.tiff"), "--as", "slides", "--encoder", str(folder)]
    assert run(["encode", *slide, "--out", str(tmp_path / "first")]) == 0
    first = read_features(tmp_path / "first/section.h5")

    line = ["encode", *slide, "--coords", str(tmp_path / "first"), "--out", str(tmp_path / "again")]
    assert run([*line, "--pictures"]) == 0
    again = read_features(tmp_path / "again/section.h5")
    assert np.array_equal(again.coords, first.coords)
    assert np.array_equal(again.rows, first.rows)
    assert again.attributes["overlap"] == 0
    assert "at the coordinates of section.h5 (TRIDENT's attributes)" in capsys.readouterr().out
    assert run(line) == 0  # done before
    found = str(tmp_path / "found")
    assert run(["encode", *slide, "--only-tissue", "--out", found]) == 0
    line[line.index("--coords") + 1] = f"{found}/coords"
    assert run(line) == 0  # the same coordinates: done before
    assert "done before" in capsys.readouterr().out
    assert run([*line, "--target-mpp", "1"]) == 2
    assert "--target-mpp (target_mpp) does not go with --coords" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--shard", "1/2"], ["--shard", "2/2"]])
@pytest.mark.parametrize("option", ["--tissue", "--coords"])
def test_a_file_of_several_slides_of_one_name_is_refused(tmp_path, capsys, option, more):
    for patient in ("P1", "P2"):
        (tmp_path / "slides" / patient).mkdir(parents=True)
        write_tiff(tmp_path / "slides" / patient / "HE.tiff", section(), mpp=0.25)
    end, beside = (".geojson" if option == "--tissue" else ".h5"), tmp_path / "drawn"
    beside.mkdir()
    (beside / f"HE{end}").touch()
    line = ["encode", str(tmp_path / "slides"), "--as", "slides", option, str(beside)]
    line += ["--out", str(tmp_path / "out"), "--dry-run", *more]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert f"HE{end} has the name of 2 slides" in said
    assert f"Name the file of each slide: P1-HE{end}, P2-HE{end}" in said
    (beside / f"HE{end}").rename(beside / f"P1-HE{end}")
    (beside / f"P2-HE{end}").touch()
    assert run(line) != 2
