"""`pathencoder convert` as users run it, and `encode` into the layouts of AnnData's form."""

import csv
import json

import h5py
import numpy as np
import pytest
from small_slides import section, write_tiff

from pathencoder.cli.main import run
from pathencoder.features.store import read_features


def trident_file(path, count=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
        file["coords"] = np.arange(2 * count).reshape(count, 2) * 512
        file["coords"].attrs.update(
            patch_size=256, patch_size_level0=512, level0_magnification=40, overlap=0, name="s"
        )
    return path


@pytest.fixture
def convert(tmp_path, capsys):
    def call(*arguments, out="new"):
        status = run(["convert", *map(str, arguments), "--out", str(tmp_path / out)])
        return status, *capsys.readouterr()

    return call


def test_a_folder_with_a_bad_file(convert, tmp_path):
    folder = tmp_path / "in"
    trident_file(folder / "a.h5")
    trident_file(folder / "more/empty.h5", 0)
    (folder / "bad.h5").write_bytes(b"not HDF5")
    (folder / "notes.txt").write_text("x")
    (folder / ".a.h5.partial").write_text("x")
    with h5py.File(folder / "coords.h5", "w") as file:
        file["coords"] = np.zeros((1, 2), np.int64)
    status, text, _ = convert(folder, "--layout", "stamp")
    assert status == 3
    assert f"{folder}/a.h5: done, 3 embeddings" in text
    assert "0.25 um per pixel, from level0_magnification" in text
    assert "rounded to float16" in text
    assert f"{folder}/more/empty.h5: no tissue found" in text
    assert f"{folder}/bad.h5: failed" in text
    assert f"Left out: {folder}/coords.h5: it holds no features" in text
    assert f"Left out: {folder}: 1 file is no feature file" in text
    assert "3 inputs: 1 done, 1 no tissue found, 1 failed. 3 embeddings in" in text
    with (tmp_path / "new/failures.csv").open(newline="") as file:
        assert [row["input"] for row in csv.DictReader(file)] == [f"{folder}/bad.h5"]
    assert read_features(tmp_path / "new/a.h5").layout == "stamp"
    assert read_features(tmp_path / "new/empty.h5").rows.shape == (0, 3)
    status, text, _ = convert(folder, "--layout", "stamp", "--json")
    found = json.loads(text)
    assert [one["status"] for one in found["inputs"]] == ["before", "failed", "before"]
    assert (found["status"], len(found["left_out"])) == (3, 2)


def test_two_files_of_one_name_get_two_names(convert, tmp_path):
    for folder in ("x", "y"):
        trident_file(tmp_path / folder / "a.h5")
    status, _, _ = convert(tmp_path / "x/a.h5", tmp_path / "y", "--layout", "clam")
    assert status == 0
    names = sorted(p.name for p in (tmp_path / "new/h5_files").iterdir())
    assert names == ["x-a.h5", "y-a.h5"]


def test_nothing_to_convert_and_wrong_options(convert, tmp_path):
    (tmp_path / "in").mkdir()
    status, _, errors = convert(tmp_path / "in", "--layout", "clam")
    assert (status, "no feature files were found" in errors) == (2, True)
    assert convert(tmp_path / "in", "--layout", "csv")[0] == 2
    status, text, _ = convert(tmp_path / "none.h5", "--layout", "clam")
    assert (status, "does not exist" in text) == (1, True)


@pytest.mark.full
@pytest.mark.parametrize("layout", ["anndata", "zarr"])
def test_a_run_into_an_annotated_layout_resumes_and_is_checked(encode, convert, tmp_path, layout):
    slide = write_tiff(tmp_path / "s.tiff", section(), mpp=0.5)
    blank = write_tiff(tmp_path / "blank.tiff", section(tissue=()), mpp=0.5)
    line = (slide, blank, "--as", "slides", "--min-tissue", "0.5")
    assert encode(*line, out="trident")[0] == 0
    status, text, _ = encode(*line, "--layout", layout)
    assert (status, "done, " in text, "no tissue found" in text) == (0, True, True)
    suffix = {"anndata": "h5ad", "zarr": "zarr"}[layout]
    names = sorted(p.name for p in (tmp_path / "out").glob(f"*.{suffix}"))
    assert names == [f"blank.{suffix}", f"s.{suffix}"]
    file = tmp_path / "out" / f"s.{suffix}"
    rows = read_features(tmp_path / "trident/s.h5").rows
    assert len(rows) > 3
    assert np.array_equal(read_features(file).rows, rows)
    assert read_features(tmp_path / "out" / f"blank.{suffix}").rows.shape == (0, rows.shape[1])
    for end in ("", ".lock"):  # of a process that was killed when the file had its name
        file.with_name(f".{file.name}.partial{end}").touch()
    status, text, _ = encode(*line, "--layout", layout, "--json")
    assert [one["status"] for one in json.loads(text)["inputs"]] == ["before", "before"]
    assert not list((tmp_path / "out").glob(".*"))
    status, text, _ = encode(*line[:-1], "0.4", "--layout", layout)
    assert (status, "made with other settings (min_tissue" in text) == (1, True)
    status, text, _ = encode(tmp_path / "out", slide, "--as", "slides", "--layout", layout)
    assert "neither images nor slides" not in text
    # what convert makes of the other layout counts as done
    status, text, _ = convert(tmp_path / "trident", "--layout", layout, out="made")
    assert status == 0
    status, text, _ = encode(*line, "--layout", layout, "--json", out="made")
    assert [one["status"] for one in json.loads(text)["inputs"]] == ["before", "before"]
