"""`pathencoder fit`, `predict` and `cache`: from tiles to a table of predictions."""

import csv
import json

import pytest
import small_encoders
import small_sets
import small_tiles
from PIL import Image

import pathencoder
from pathencoder.cli.main import run

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An encoder's folder, tiles, and a head that was fitted on them by the command."""
    root = tmp_path_factory.mktemp("heads")
    small_encoders.encoder("cnn").save_pretrained(root / "encoder")
    small_tiles.folder(root / "tiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATHENCODER_CACHE", str(root / "cache"))
        assert run(arguments(root, root / "head")) == 0
    return root


def arguments(root, out, *more):
    return [
        *("fit", "--data", str(root / "tiles"), "--groups", small_tiles.GROUPS),
        *("--encoder", str(root / "encoder"), "--device", "cpu", "--out", str(out)),
        *more,
    ]


@pytest.fixture
def call(place, capsys, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(place / "cache"))

    def calling(*given):
        status = run(list(map(str, given)))
        return status, *capsys.readouterr()

    return calling


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_fit_reports_and_saves(place, call, tmp_path):
    more = ("-o", "c=0.01", "--max-error", "0.1", "--json")
    status, out, _ = call(*arguments(place, tmp_path / "head", *more))
    said = json.loads(out)
    assert status == 0
    assert said["settings"] == {"c": 0.01}
    assert said["report"]["groups"] == 6
    assert said["report"]["abstention"]["max_error"] == 0.1
    assert pathencoder.load_head(tmp_path / "head").classes == ("benign", "malignant")
    status, _, err = call(*arguments(place, tmp_path / "head"))
    assert status == 2
    assert "--overwrite replaces it" in err


def test_predict_writes_tables_and_lists_bad_images(place, call, tmp_path):
    new = small_tiles.folder(tmp_path / "new", patients=2, each=1)
    (new / "benign" / "bad.png").write_bytes(b"no picture")
    single = place / "tiles/malignant/P0_0.png"
    out = tmp_path / "out"
    (tmp_path / "notes.txt").write_text("x")
    status, text, _ = call(
        "predict", place / "head", new, single, tmp_path / "notes.txt", "--out", out
    )
    assert status == 3
    assert "bad.png" in text
    assert "by its suffix '.txt'\n" in text
    found = rows_of(out / "new.csv")
    assert [(r["image"], r["label"], r["abstained"]) for r in found] == [
        ("benign/P0_0.png", "benign", "0"),
        ("benign/P1_0.png", "benign", "0"),
        ("malignant/P0_0.png", "malignant", "0"),
        ("malignant/P1_0.png", "malignant", "0"),
    ]
    assert float(found[0]["p_benign"]) > 0.5 > float(found[0]["p_malignant"])
    assert [r["label"] for r in rows_of(out / "P0_0.csv")] == ["malignant"]
    assert [r["part"] for r in rows_of(out / "failures.csv")] == ["benign/bad.png", ""]
    assert call("predict", place / "head", new, "--out", out)[0] == 3  # its own table is replaced


def test_tables_of_other_inputs_and_heads_are_kept(place, call, tmp_path):
    first, other = (small_tiles.folder(tmp_path / n / "new", patients=2, each=1) for n in "ab")
    line = ("predict", place / "head", first, "--out", tmp_path / "out", "--device", "cpu")
    assert call(*line)[0] == 0
    table = tmp_path / "out/new.csv"
    before, written = table.read_bytes(), table.stat().st_mtime_ns
    assert "new: done before, 4 predictions" in call(*line)[1]
    assert table.stat().st_mtime_ns == written
    status, text, _ = call(*line[:2], other, *line[3:])
    assert status == 1
    assert f"holds the predictions of {first}" in text
    assert "--overwrite replaces it" in text
    assert call(*arguments(place, tmp_path / "head", "-o", "c=0.5"))[0] == 0
    status, text, _ = call(line[0], tmp_path / "head", *line[2:])
    assert status == 1
    assert "predictions of another head" in text
    assert table.read_bytes() == before
    (first / "benign/P0_0.png").unlink()  # the same input, which has changed
    assert call(*line)[0] == 0
    assert len(rows_of(table)) == 3
    assert call(*line[:2], other, *line[3:], "--overwrite")[0] == 0
    assert len(rows_of(table)) == 4
    table.with_name("new.csv.json").unlink()  # as a table of an earlier version
    status, text, _ = call(*line)
    assert status == 1
    assert "has no record of its input" in text


def test_images_that_are_named_one_by_one_have_their_own_table(place, call, tmp_path):
    new = small_tiles.folder(tmp_path / "new", patients=2, each=1) / "benign"
    options = ("--out", tmp_path / "out", "--device", "cpu")
    both = ("predict", place / "head", new / "P0_0.png", new / "P1_0.png", *options)
    assert call(*both)[0] == 0
    assert "benign: done before, 2 predictions" in call(*both)[1]
    (new / "P2_0.png").write_bytes((new / "P0_0.png").read_bytes())
    status, text, _ = call(*both[:3], new / "P2_0.png", *options)
    assert status == 1
    assert "predictions of other images there" in text


def test_predict_on_feature_files(place, call, tmp_path):
    encode = ("encode", place / "tiles", "--out", tmp_path, "--device", "cpu", "--encoder")
    assert call(*encode, place / "encoder")[0] == 0
    status, _, _ = call("predict", place / "head", tmp_path / "tiles.h5", "--out", tmp_path / "p")
    assert status == 0
    found = rows_of(tmp_path / "p/tiles.csv")
    assert len(found) == 24
    assert all(r["image"].startswith(r["label"]) for r in found)
    (tmp_path / "damaged.h5").write_bytes(b"nothing")
    both = (tmp_path / "damaged.h5", tmp_path / "tiles.h5")
    assert call("predict", place / "head", *both, "--out", tmp_path / "both")[0] == 3
    assert len(rows_of(tmp_path / "both/tiles.csv")) == 24
    features = tmp_path / "features"
    (features / "pictures").mkdir(parents=True)
    for name in ("a", "b"):
        (features / f"{name}.h5").write_bytes((tmp_path / "tiles.h5").read_bytes())
    Image.new("RGB", (64, 64)).save(features / "pictures/a.jpg")
    assert call("predict", place / "head", features, "--out", tmp_path / "f")[0] == 0
    assert sorted(path.name for path in (tmp_path / "f").glob("*.csv")) == ["a.csv", "b.csv"]
    assert len(rows_of(tmp_path / "f/b.csv")) == 24
    small_encoders.encoder("vit").save_pretrained(tmp_path / "other")
    assert call(*encode, tmp_path / "other", "--overwrite")[0] == 0
    status, text, _ = call(
        "predict", place / "head", tmp_path / "tiles.h5", "--out", tmp_path / "q"
    )
    assert status == 1
    assert "the head was fitted on small-cnn" in text


def test_refusals(place, call, tmp_path):
    assert call("predict", place / "encoder", place / "tiles", "--out", tmp_path)[0] == 2
    status, _, err = call(
        "predict", place / "head", place / "tiles", "--out", tmp_path, "--encoder",
        "pathencoder-tiny", "--device", "cpu",
    )  # fmt: skip
    assert status == 1
    assert "fitted on small-cnn" in err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiles.csv").write_text("mine")
    status, text, _ = call("predict", place / "head", place / "tiles", "--out", tmp_path / "out")
    assert status == 1
    assert "not a table of predictions" in text
    assert (tmp_path / "out" / "tiles.csv").read_text() == "mine"
    table = small_tiles.table(tmp_path, [("a.png", "x", "p", "train"), ("b.png", "", "p", "train")])
    status, _, err = call("fit", "--data", table, "--out", tmp_path / "head")
    assert status == 2
    assert "3 problems; nothing was encoded" in err
    assert "loading" not in err


def test_bad_images_of_the_held_out_part_are_left_out(place, call, tmp_path):
    for part, patients in (("train", range(4)), ("test", (8, 9))):
        for label in ("benign", "malignant"):
            for number in patients:
                file = tmp_path / "d" / part / label / f"P{number}_0.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(small_tiles.tile(label, number)).save(file)
    file.write_bytes(b"no picture")
    more = ("--evaluate", "test", "-o", "c=0.01", "--no-cache")
    given = arguments(place, tmp_path / "head", *more)
    given[given.index("--data") + 1] = str(tmp_path / "d")
    status, _, err = call(*given)
    assert status != 0
    assert "1 of 12 images cannot be read" in err
    status, out, _ = call(*given, "--skip-bad")
    assert status == 0
    assert "evaluated on test: 3 images of 2 groups" in out
    assert (tmp_path / "head/config.json").is_file()


def test_the_cache_is_shown_and_cleared(place, call):
    status, out, _ = call("cache", "--json")
    assert status == 0
    (entry,) = json.loads(out)["entries"]
    assert (entry["encoder"], entry["images"], entry["current"]) == ("small-cnn", 24, True)
    assert "small-cnn  24" in call("cache")[1]
    assert "features of 0 images" in call("cache", "--clear", "--encoder", "other")[1]
    assert "features of 24 images" in call("cache", "--clear")[1]
    assert json.loads(call("cache", "--json")[1])["entries"] == []


def test_a_public_set_is_fitted_from_its_folder(place, call, tmp_path):
    small_sets.breakhis(tmp_path / "data")
    common = (
        *("fit", "--data", tmp_path / "data", "--encoder", place / "encoder"),
        *("--device", "cpu", "--out", tmp_path / "head"),
    )
    more = ("--dataset", "breakhis", "--dataset-option", "fold=1", "--evaluate", "test")
    status, out, _ = call(*common, *more, "-o", "c=0.01")
    assert status == 0
    assert "evaluated on test: 4 images of 2 groups" in out
    assert "CC BY 4.0; commercial use is allowed" in out
    again = (*common, "--overwrite")
    status, _, error = call(*again, "--dataset", "glas", "--head", "linear")
    assert status == 2
    assert "glas has outlines: --head glands, nuclei or points" in error
    status, _, error = call(*again, "--dataset", "mhist")
    assert status == 2
    assert "does not hold MHIST as it is published" in error
    status, _, error = call(*again, *more, "--head", "nuclei")
    assert status == 2
    assert "breakhis has a class an image" in error
