"""`encode` on a part of the work: --only-tissue, --shard, --retry-failed."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_encoders
from PIL import Image
from small_slides import section, write_tiff

from pathencoder.cli.main import run
from pathencoder.features.store import read_features

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "small"
    small_encoders.encoder("cnn").save_pretrained(path)
    return ["--encoder", str(path)]


@pytest.fixture
def slides(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_tiff(folder / f"{name}.tiff", section(), mpp=0.25)
    return folder


def test_tissue_and_tiles_without_an_encoder_and_then_embedded(tmp_path, slides, encoder, capsys):
    out = tmp_path / "found"
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(out)]
    assert run([*line, "--only-tissue", "--pictures"]) == 0
    assert "for small-cnn on 3 slides" in capsys.readouterr().out
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        f"{folder}/{name}{end}"
        for folder, end in (("tissue", ".geojson"), ("coords", ".h5"), ("pictures", ".jpg"))
        for name in "abc"
    } | {"tissue_summary.csv", "tissue_summary.json"}
    listed = json.loads((out / "tissue_summary.json").read_text("utf-8"))["inputs"]
    assert [(Path(one["input"]).name, one["status"]) for one in listed] == [
        (f"{name}.tiff", "done") for name in "abc"
    ]
    with h5py.File(out / "coords/a.h5") as file:
        coords, attributes = np.array(file["coords"]), dict(file["coords"].attrs)
    assert (attributes["patch_size"], attributes["patch_size_level0"]) == (64, 128)

    line[-1] = str(tmp_path / "given")
    assert run([*line, "--coords", str(out / "coords")]) == 0
    line[-1] = str(tmp_path / "whole")
    assert run(line) == 0
    given, whole = (read_features(tmp_path / f"{name}/a.h5") for name in ("given", "whole"))
    assert np.array_equal(given.coords, coords)
    assert np.array_equal(given.coords, whole.coords)
    assert np.array_equal(given.rows, whole.rows)


def times_of(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.parent != folder}


def test_tissue_that_was_found_is_not_looked_for_again(tmp_path, slides, encoder, capsys):
    out = tmp_path / "found"
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(out), "--only-tissue"]
    assert run(line) == 0
    first = capsys.readouterr().out
    made = times_of(out)
    (out / "coords/b.h5").unlink()  # as if the run had stopped before it
    drawn = (out / "tissue/b.geojson").read_text("utf-8").replace("Tissue", "Tumor")
    (out / "tissue/b.geojson").write_text(drawn, "utf-8")
    assert run([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["inputs"]
    assert [one["status"] for one in found] == ["before", "done", "before"]
    assert [one["rows"] for one in found] == [int(first.split("tiles for")[0].split()[-1]) // 3] * 3
    assert "kept as it is" in found[1]["notes"][-1]
    assert (out / "tissue/b.geojson").read_text("utf-8") == drawn
    again = times_of(out)
    assert {p.name for p in made if again[p] == made[p]} == {
        f"{name}{end}" for name in "ac" for end in (".geojson", ".h5")
    }
    assert run([*line, "--overwrite"]) == 0
    assert "Tumor" not in (out / "tissue/b.geojson").read_text("utf-8")


def test_coords_of_other_settings_or_slides_are_kept(tmp_path, slides, encoder, capsys):
    line = ["encode", str(slides), "--as", "slides", *encoder, "--only-tissue"]
    out = ["--out", str(tmp_path / "found")]
    assert run([*line, *out]) == 0
    made = times_of(tmp_path / "found")
    capsys.readouterr()
    for mode, status in (([], 1), (["--dry-run"], 3)):
        assert run([*line, *out, "--min-tissue", "0.5", *mode]) == status
        said = capsys.readouterr().out
        assert said.count("min_tissue: 0.25 there, 0.5 now") == 3
        assert "--overwrite" in said
    write_tiff(slides / "a.tiff", section()[::-1].copy(), mpp=0.25)
    with h5py.File(tmp_path / "found/coords/b.h5", "a") as file:
        del file.attrs["grid_recipe"]
    assert run([*line, *out]) == 3
    said = capsys.readouterr().out
    assert "on 1 slide." in said
    assert "before that file changed" in said
    assert "does not say what it was made from" in said
    assert {p: t for p, t in times_of(tmp_path / "found").items() if p.name != "b.h5"} == {
        p: t for p, t in made.items() if p.name != "b.h5"
    }
    assert run([*line, *out, "--retry-failed", "--overwrite"]) == 0
    assert run([*line, *out, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("coords/") == 3


def test_a_picture_of_tissue_that_was_found_before(tmp_path, slides, encoder, capsys):
    out = tmp_path / "found"
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(out), "--only-tissue"]
    assert run(line) == 0
    made = times_of(out)
    photo = out / "pictures/b.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"of the user")
    capsys.readouterr()
    for _ in range(2):
        assert run([*line, "--pictures", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["inputs"]
        kept = ["was not drawn by pathencoder" in " ".join(one["notes"]) for one in found]
        assert kept == [False, True, False]
        assert {p.name for p in photo.parent.iterdir()} == {"a.jpg", "b.jpg", "c.jpg"}
        assert photo.read_bytes() == b"of the user"
    assert {p: times_of(out)[p] for p in made} == made


def test_areas_that_were_drawn_are_never_replaced(tmp_path, slides, encoder, capsys):
    out = tmp_path / "found"
    line = ["encode", str(slides / "a.tiff"), "--as", "slides", *encoder, "--out", str(out)]
    assert run([*line, "--save-tissue"]) == 0
    file = out / "tissue/a.geojson"
    drawn = file.read_text("utf-8").replace("Tissue", "Tumor")
    file.write_text(drawn, "utf-8")
    assert run([*line, "--save-tissue", "--pictures"]) == 0
    assert file.read_text("utf-8") == drawn
    given = ["--tissue", str(out / "tissue"), "--overwrite"]
    for what in ("--save-tissue", "--only-tissue"):
        assert run([*line, *given, what]) == 0
        assert file.read_text("utf-8") == drawn
    assert "failed" not in capsys.readouterr().out


def test_tiles_are_no_slides(tmp_path, encoder, capsys):
    Image.fromarray(section()).save(tmp_path / "tile.png")
    line = ["encode", str(tmp_path / "tile.png"), *encoder, "--out", str(tmp_path / "out")]
    assert run([*line, "--only-tissue"]) == 1
    assert "no slide" in capsys.readouterr().out


def test_shards_are_disjoint_and_complete(tmp_path, slides, encoder, capsys):
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(tmp_path / "out")]
    names = []
    for number in (1, 2, 3):
        assert run([*line, "--only-tissue", "--json", "--shard", f"{number}/3"]) == 0
        found = json.loads(capsys.readouterr().out)
        names += [Path(one["input"]).name for one in found["inputs"]]
        assert f"shard {number} of 3: {len(found['inputs'])} of 3 inputs" in found["notes"]
    assert sorted(names) == ["a.tiff", "b.tiff", "c.tiff"]


@pytest.mark.parametrize("value", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_shards_that_do_not_exist(value, tmp_path, slides, capsys):
    line = ["encode", str(slides), "--out", str(tmp_path / "out"), "--shard", value]
    assert run(line) == 2
    assert "3/16" in capsys.readouterr().err


def test_only_what_failed_is_tried_again(tmp_path, slides, encoder, capsys):
    write_tiff(slides / "b.tiff", section(), mpp=None)
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(tmp_path / "out")]
    assert run([*line, "--json"]) == 3
    capsys.readouterr()
    write_tiff(slides / "b.tiff", section(), mpp=0.25)
    assert run([*line, "--json", "--retry-failed"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(Path(o["input"]).name, o["status"]) for o in found["inputs"]] == [("b.tiff", "done")]
    assert run([*line, "--retry-failed"]) == 2
    assert "no input has failed" in capsys.readouterr().err


@pytest.mark.full
def test_a_table_gives_slides_settings_of_their_own(encode, tmp_path):
    from small_slides import section, write_tiff

    for name in ("a", "b"):
        (tmp_path / "slides").mkdir(exist_ok=True)
        write_tiff(tmp_path / f"slides/{name}.tif", section(), mpp=0.5)
    square = [[128, 128], [384, 128], [384, 384], [128, 384], [128, 128]]
    area = {"type": "Polygon", "coordinates": [square]}
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/b.geojson").write_text(json.dumps(area))
    table = tmp_path / "tables/slides.csv"
    table.write_text("slide,target_mpp,min_tissue,tissue\na,1,0.9,\nb,,,b.geojson\n")
    arguments = (tmp_path / "slides", "--as", "slides", "--slides-csv", table)
    assert encode(*arguments)[0] == 0
    a, b = (read_features(tmp_path / f"out/{name}.h5") for name in ("a", "b"))
    recipes = [json.loads(found.attributes["recipe"]) for found in (a, b)]
    assert [recipe["target_mpp"] for recipe in recipes] == [1.0, 0.5]
    assert [recipe["min_tissue"] for recipe in recipes] == [0.9, 0.25]
    assert "areas drawn in a file" in recipes[1]["tissue"]
    assert a.attributes["tile_side_level0"] == 2 * b.attributes["tile_side_level0"] == 128
    assert b.coords.max() < 384
    assert encode(*arguments)[1].count(": done before") == 2
    coords = encode(*arguments, "--only-tissue", out="coords")[1]
    assert f"{len(a.rows) + len(b.rows)} tiles" in coords


def test_a_share_of_the_inputs_has_the_rows_that_they_have_together(encode, tmp_path):
    for name in ("P1", "P2"):
        (tmp_path / name).mkdir()
        write_tiff(tmp_path / name / "HE.tiff", section(), mpp=0.5)
    table = tmp_path / "slides.csv"
    table.write_text("slide,mpp\nP1/HE.tiff,0.25\n")
    line = [tmp_path, "--as", "slides", "--slides-csv", table, "--dry-run", "--json"]
    whole = json.loads(encode(*line)[1])["inputs"]
    assert [one["mpp"] for one in whole] == [0.25, 0.5]
    shares = [json.loads(encode(*line, "--shard", f"{n}/8")[1]) for n in range(1, 9)]
    assert sorted((one for share in shares for one in share["inputs"]), key=str) == whole
    assert all(not share["notes"] for share in shares)


def test_tissue_that_was_deleted_is_written_again(tmp_path, slides, encoder, capsys):
    out = tmp_path / "found"
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out", str(out), "--only-tissue"]
    assert run(line) == 0
    file = out / "tissue/a.geojson"
    written, made = file.read_bytes(), times_of(out)
    file.unlink()
    assert run(line) == 0
    assert "its missing file of tissue is written again" in capsys.readouterr().out
    assert file.read_bytes() == written
    again = times_of(out)
    assert {p.name for p in made if again[p] != made[p]} == {"a.geojson"}
    assert run(line) == 0
    assert "missing" not in capsys.readouterr().out


def test_a_slide_without_tissue_stays_empty_with_its_own_file(tmp_path, slides, encoder, capsys):
    write_tiff(slides / "blank.tiff", np.full_like(section(), 255), mpp=0.25)
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out"]
    assert run([*line, str(tmp_path / "found"), "--only-tissue"]) == 0
    tissue = ["--tissue", str(tmp_path / "found/tissue")]
    capsys.readouterr()
    assert run([*line, str(tmp_path / "out"), *tissue, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["inputs"]
    statuses = {Path(one["input"]).stem: one["status"] for one in found}
    assert statuses == {"a": "done", "b": "done", "c": "done", "blank": "empty"}
    assert read_features(tmp_path / "out/blank.h5").rows.shape[0] == 0


def test_a_dry_run_says_which_row_contradicts_the_coordinates(tmp_path, slides, encoder, capsys):
    line = ["encode", str(slides), "--as", "slides", *encoder, "--out"]
    assert run([*line, str(tmp_path / "found"), "--only-tissue"]) == 0
    table = tmp_path / "slides.csv"
    table.write_text("slide,target_mpp\nb,0.5\n")
    given = ["--coords", str(tmp_path / "found/coords"), "--slides-csv", str(table)]
    for mode in (["--dry-run"], []):
        capsys.readouterr()
        assert run([*line, str(tmp_path / "out"), *given, *mode, "--json"]) == 3
        found = json.loads(capsys.readouterr().out)["inputs"]
        wrong = [one for one in found if one.get("problem") or one.get("failures")]
        assert [Path(one["input"]).stem for one in wrong] == ["b"]
