"""`pathencoder fit` and `predict` with dense heads: from labelled images to files for QuPath."""

import json

import labelled_tissue
import numpy as np
import pytest
import small_encoders
import small_tiles
from small_slides import write_tiff
from synthetic_nuclei import tissue

import pathencoder
from pathencoder.cli import fit as fit_command
from pathencoder.cli.main import run
from pathencoder.heads.dense import train
from pathencoder.nuclei import regions

pytestmark = pytest.mark.full
QUICK = ("-o", "batch=4", "-o", "side=64", "-o", "read_mpp=0.5")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An encoder's folder, labelled images, and a head that was fitted on them by the command."""
    root = tmp_path_factory.mktemp("dense")
    small_encoders.encoder("cnn").save_pretrained(root / "encoder")
    labelled_tissue.folder(root / "data", count=2)
    more = ("-o", "steps=80", "-o", "lr=0.01", "-o", "frozen=true")
    assert run(arguments(root, root / "head", *more)) == 0
    return root


def arguments(root, out, *more):
    return [
        *("fit", "--head", "nuclei", "--data", str(root / "data"), "--mpp", "0.5"),
        *("--encoder", str(root / "encoder"), "--device", "cpu", "--out", str(out)),
        *QUICK,
        *more,
    ]


@pytest.fixture
def call(place, capsys):
    def calling(*given):
        status = run(list(map(str, given)))
        return status, *capsys.readouterr()

    return calling


def test_fit_reports_and_saves(place, call, tmp_path):
    more = ("-o", "steps=2", "-o", "folds=2", "--groups", r"(P\d+)_", "--json")
    status, out, _ = call(*arguments(place, tmp_path / "head", *more))
    said = json.loads(out)
    assert status == 0
    assert said["kind"] == "nuclei"
    assert said["settings"]["steps"] == 2
    assert said["report"]["groups"] == 2
    assert set(said["report"]["scores"]) == {"dice", "aji", "pq", "f1"}
    assert pathencoder.load_head(tmp_path / "head", device="cpu").adapted
    assert sorted(file.name for file in (tmp_path / "head").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "report.json",
    ]  # fmt: skip
    status, _, err = call(*arguments(place, tmp_path / "head"))
    assert status == 2
    assert "--overwrite replaces it" in err


def test_an_interrupted_fit_goes_on(place, call, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EVERY", 1)
    real, steps = train._Run.step, []

    def step(run):
        steps.append(run.done)
        if steps == [0, 1, 2]:
            raise KeyboardInterrupt
        return real(run)

    monkeypatch.setattr(train._Run, "step", step)
    given = arguments(place, tmp_path / "head", "-o", "steps=4")
    assert call(*given)[0] == 130
    assert (tmp_path / "head" / fit_command.CHECKPOINT).is_dir()
    status, _, err = call(*given)
    assert status == 0
    assert steps == [0, 1, 2, 2, 3]
    assert "resuming after 2 of 4" in err
    assert not (tmp_path / "head" / fit_command.CHECKPOINT).exists()


def test_bad_options_are_refused_before_anything_is_read(place, call, tmp_path):
    status, _, err = call(*arguments(place, tmp_path / "head", "-o", "step=4"))
    assert status == 2
    assert "Did you mean 'steps'" in err
    status, _, err = call(*arguments(place, tmp_path / "head", "--max-error", "0.1"))
    assert status == 2
    assert "max_error=0.1: the head 'nuclei' does not take it" in err


def test_predict_on_images(place, call, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "bad.png").write_bytes(b"no picture")
    given = ("predict", place / "head", place / "data/images", tmp_path / "new", "--out", out)
    status, text, _ = call(*given, "--device", "cpu")
    assert status == 3
    assert "bad.png" in text
    assert sorted(file.name for file in out.glob("P0_0*")) == [
        "P0_0.csv", "P0_0.geojson", "P0_0.labels.png", "P0_0.overlay.png",
    ]  # fmt: skip
    facts = json.loads((out / "P0_0.geojson").read_text())["pathencoder"]
    assert facts["nuclei"] > 4
    assert facts["mpp"] == 0.5
    assert any("0.5 um/px assumed" in note for note in facts["notes"])
    before = (out / "P0_0.csv").stat().st_mtime_ns
    _, text, _ = call(*given, "--device", "cpu")
    assert "done before" in text
    assert (out / "P0_0.csv").stat().st_mtime_ns == before
    _, text, _ = call(*given, "--device", "cpu", "--views", "4")
    assert "done before" not in text


def test_predict_on_a_slide(place, call, tmp_path, monkeypatch):
    image, *_ = tissue((384, 384), nuclei=60, radius=7, seed=5)
    whole = np.full((384, 768, 3), 255, np.uint8)
    whole[:, :384] = image
    write_tiff(tmp_path / "slide.tif", whole, mpp=0.5)
    monkeypatch.setattr(regions, "REGION", 192)
    monkeypatch.setattr(regions, "_OVERLAP", 48)
    slide = ("predict", place / "head", tmp_path / "slide.tif", "--device", "cpu")
    status, out, _ = call(*slide, "--out", tmp_path / "all", "--json")
    assert status == 0
    said = json.loads(out)["inputs"][0]
    assert len(said["results"]) >= 4
    status, out, _ = call(
        *slide, "--out", tmp_path / "one",
        "--region", 0, 0, 480, 384, "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["inputs"][0]["nuclei"] == said["nuclei"]
    file = tmp_path / "one" / "slide_x0_y0_w480_h384.geojson"
    corners = [f["geometry"]["coordinates"][0] for f in json.loads(file.read_text())["features"]]
    parts = [json.loads(f.read_text())["features"] for f in (tmp_path / "all").glob("*.geojson")]
    assert len(corners) == sum(map(len, parts))
    places = np.array([c[0] for p in parts for f in p for c in f["geometry"]["coordinates"]])
    assert places.max(0)[0] > 300


def test_a_file_of_another_kind_is_refused_without_an_option_that_is_not_there(
    place, call, tmp_path
):
    (tmp_path / "x.h5").write_bytes(b"")
    status, _, err = call("predict", place / "head", tmp_path / "x.h5", "--out", tmp_path / "out")
    assert status == 2
    assert "neither an image nor a slide by its suffix '.h5': give images or slides" in err
    assert "--as" not in err


def test_results_of_another_kind_are_kept(place, call, tmp_path):
    image = place / "data/images/P0_0.png"
    assert call("nuclei", image, "--out", tmp_path, "--mpp", "0.5")[0] == 0
    head = pathencoder.load_head(place / "head", device="cpu")
    head.kind = "glands"
    head.sizes = {"smallest_um2": 1.0}
    head.save(tmp_path / "glands")
    status, text, _ = call(
        "predict", tmp_path / "glands", image, "--out", tmp_path, "--device", "cpu"
    )
    assert status == 1
    assert "results of another kind are there" in text


def test_options_of_dense_heads_are_refused_for_a_classifier(place, call, tmp_path, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    tiles = small_tiles.folder(tmp_path / "tiles")
    status, *_ = call(
        "fit", "--data", tiles, "--groups", small_tiles.GROUPS, "--head", "prototypes",
        "--encoder", place / "encoder", "--device", "cpu", "--out", tmp_path / "head",
    )  # fmt: skip
    assert status == 0
    status, _, err = call(
        "predict", tmp_path / "head", tiles, "--out", tmp_path / "out", "--views", "4"
    )
    assert status == 2
    assert "--views are of dense heads" in err


def test_points_have_no_label_map_and_are_done_before(place, call, tmp_path):
    labelled_tissue.cells(tmp_path / "data")
    given = arguments(place, tmp_path / "head", "-o", "steps=8", "-o", "lr=0.01")
    given[2], given[4] = "points", str(tmp_path / "data")
    assert call(*given)[0] == 0
    predict = ("predict", tmp_path / "head", tmp_path / "data/images", "--out", tmp_path / "out")
    status, out, _ = call(*predict, "--device", "cpu", "--json")
    assert status == 0
    first = json.loads(out)["inputs"][0]
    assert first["status"] == "done"
    assert set(first["results"][0]["cells_of_class"]) == {"negative", "positive"}
    assert sum(first["results"][0]["cells_of_class"].values()) == first["cells"]
    names = sorted(file.name for file in (tmp_path / "out").glob("P0_0*"))
    assert names == ["P0_0.csv", "P0_0.geojson", "P0_0.overlay.png"]
    _, out, _ = call(*predict, "--device", "cpu", "--json")
    assert {one["status"] for one in json.loads(out)["inputs"]} == {"before"}
    (tmp_path / "out" / "P0_0.csv").unlink()
    _, out, _ = call(*predict, "--device", "cpu", "--json")
    assert [one["status"] for one in json.loads(out)["inputs"]] == ["done", "before"]
    config = json.loads((tmp_path / "head/config.json").read_text())
    config["encoder"]["folder"] = str(tmp_path / "moved")
    (tmp_path / "head/config.json").write_text(json.dumps(config))
    elsewhere = (*predict[:-1], tmp_path / "again", "--device", "cpu")
    status, _, err = call(*elsewhere)
    assert status == 1
    assert "cannot be loaded" in err
    assert "--encoder" in err
    assert call(*elsewhere, "--encoder", place / "encoder")[0] == 0
    name = "P0_0.geojson"
    assert (tmp_path / "again" / name).read_text().count("positive") == (
        (tmp_path / "out" / name).read_text().count("positive")
    )
