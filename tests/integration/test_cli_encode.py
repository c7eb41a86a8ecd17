"""`pathencoder encode` on tiles.

What is written, what a second run does, and every kind of bad input beside good ones.
"""

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_encoders
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.encoder import load_encoder
from pathencoder.errors import StoreError
from pathencoder.features import job
from pathencoder.features.store import read_features


def test_a_folder_gives_the_rows_that_python_gives(tiles, encode, folder, tmp_path):
    status, text, _ = encode(tiles)
    assert status == 0
    assert "tiles: done, 6 embeddings" in text
    found = read_features(tmp_path / "out" / "tiles.h5")
    rows, keys = load_encoder(folder, device="cpu").encode(tiles, return_keys=True, progress=False)
    assert found.keys == keys == ["a/1.png", "a/3.png", "a/5.png", "b/0.png", "b/2.png", "b/4.png"]
    assert np.array_equal(found.rows, rows)
    assert found.attributes["encoder"] == "small-cnn"
    assert len(found.attributes["sha256"]) == 64
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert sorted(os.listdir(tmp_path / "out")) == ["summary.csv", "summary.json", "tiles.h5"]


def test_the_lines_that_the_summary_prints_do_read_the_file(tiles, encode):
    _, text, _ = encode(tiles)
    lines = [line.strip() for line in text.split("Read them:")[1].strip().splitlines()]
    names = {}
    exec("\n".join(lines), names)
    assert names["rows"].shape == (6, 256)


def test_the_second_run_does_nothing_and_says_so(tiles, encode, forwards, tmp_path):
    encode(tiles)
    before = (tmp_path / "out" / "tiles.h5").stat().st_mtime_ns
    forwards.clear()
    status, text, _ = encode(tiles)
    assert (status, forwards) == (0, [])
    assert "done before, 6 embeddings" in text
    assert (tmp_path / "out" / "tiles.h5").stat().st_mtime_ns == before


def test_a_changed_folder_costs_only_what_changed(tiles, encode, forwards, tmp_path):
    encode(tiles)
    first = read_features(tmp_path / "out" / "tiles.h5")
    forwards.clear()
    (tiles / "a" / "1.png").unlink()
    Image.fromarray(small_encoders.picture(9, 80, 80)).save(tiles / "new.png")
    Image.fromarray(small_encoders.picture(10, 90, 90)).save(tiles / "b" / "0.png")
    assert encode(tiles)[0] == 0
    assert len(forwards) == 2
    found = read_features(tmp_path / "out" / "tiles.h5")
    assert found.keys == ["a/3.png", "a/5.png", "b/0.png", "b/2.png", "b/4.png", "new.png"]
    same = (
        [found.keys.index(k) for k in ("a/3.png", "b/4.png")],
        [first.keys.index(k) for k in ("a/3.png", "b/4.png")],
    )
    assert np.array_equal(found.rows[same[0]], first.rows[same[1]])
    assert not np.allclose(found.rows[2], first.rows[3])


def test_several_images_of_a_folder_are_added_to_its_file(tiles, encode, tmp_path):
    for numbers in ((1, 3), (3, 5)):
        status, text, _ = encode(*(tiles / "a" / f"{n}.png" for n in numbers))
        assert status == 0
        assert text.startswith(f"2 images of {tiles / 'a'}: done")
    assert read_features(tmp_path / "out" / "a.h5").keys == ["1.png", "3.png", "5.png"]


def test_one_image_gives_a_file_of_its_name(tiles, encode, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiles / "a")
    status, text, _ = encode("1.png")
    assert status == 0
    assert text.startswith("1.png: done, 1 embedding")
    found = read_features(tmp_path / "out" / "1.h5")
    assert found.keys == ["1.png"]
    rows = load_encoder(folder, device="cpu").encode("1.png", progress=False)
    assert np.array_equal(found.rows, rows)
    assert encode(tiles / "a" / "1.png")[1].startswith(f"{tiles / 'a' / '1.png'}: done before")
    assert encode("3.png", "5.png")[1].startswith("2 images of a: done")


def test_one_image_that_cannot_be_read_is_listed_by_its_name(tiles, encode, tmp_path):
    (tiles / "bad.png").write_text("no image")
    status, text, _ = encode(tiles / "bad.png")
    assert status == 1
    assert text.startswith(f"{tiles / 'bad.png'}: failed\n    not an image")
    assert failed_rows(tmp_path)[0]["input"] == str(tiles / "bad.png")


def bad_files(folder):
    """Bad image files of every kind, and the good ones that may look odd."""
    good = small_encoders.picture(50, 80, 80)
    Image.fromarray(good).save(folder / "cut.jpg", quality=90)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("no image")
    (folder / "zero.png").touch()
    Image.fromarray(good).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(good).convert("P").save(folder / "palette.png")
    Image.fromarray(good[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(good[:1, :1]).save(folder / "one.png")
    return {"cut.jpg", "text.png", "zero.png"}


def test_bad_images_are_listed_and_cost_no_good_one(tiles, encode, tmp_path):
    bad = bad_files(tiles)
    status, text, _ = encode(tiles)
    assert status == 3
    found = read_features(tmp_path / "out" / "tiles.h5")
    assert len(found.rows) == 6 + 4
    assert np.isfinite(found.rows).all()
    assert {f.part for f in found.failures} == bad
    with (tmp_path / "out" / "failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["part"] for row in rows} == bad
    assert all(row["reason"] and row["input"] == str(tiles) for row in rows)
    assert "3 could not be read" in text


def test_a_repaired_image_is_embedded_by_the_next_run(tiles, encode, forwards, tmp_path):
    (tiles / "bad.png").write_text("no image")
    assert encode(tiles)[0] == 3
    forwards.clear()
    status, text, _ = encode(tiles)
    assert (status, forwards) == (3, [])
    assert "done before" in text
    Image.fromarray(small_encoders.picture(7, 80, 80)).save(tiles / "bad.png")
    assert encode(tiles)[0] == 0
    assert len(forwards) == 1
    assert "bad.png" in read_features(tmp_path / "out" / "tiles.h5").keys
    assert not (tmp_path / "out" / "failures.csv").exists()


def test_missing_and_empty_inputs_stand_beside_good_ones(tiles, encode, tmp_path):
    (tmp_path / "empty").mkdir()
    status, text, _ = encode(tiles, tmp_path / "empty", tmp_path / "gone")
    assert status == 3
    for word in (
        "tiles: done, 6",
        "empty: failed",
        "no images or slides",
        "gone: failed",
        "no such file",
    ):
        assert word in text, word
    status, _, errors = encode(tmp_path / "empty", tmp_path / "gone", out="other")
    assert status == 2
    for word in ("nothing to do", "empty: no images or slides", "gone: no such file"):
        assert word in errors, word
    assert "loading" not in errors
    assert not (tmp_path / "other").exists()


def test_later_runs_of_other_inputs_keep_what_failed_before(tiles, encode, tmp_path):
    (tiles / "a" / "bad.png").write_text("no image")
    (tiles / "b" / "bad.png").write_text("no image")
    for folder, expected in (("a", {"a"}), ("b", {"a", "b"})):
        assert encode(tiles / folder)[0] == 3
        assert {Path(row["input"]).name for row in failed_rows(tmp_path)} == expected
    (tiles / "a" / "bad.png").unlink()
    assert encode(tiles / "a")[0] == 0
    assert {Path(row["input"]).name for row in failed_rows(tmp_path)} == {"b"}


def failed_rows(tmp_path):
    with (tmp_path / "out" / "failures.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_nothing_but_bad_images_is_a_failure_without_a_file(encode, tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "a.png").write_text("x")
    status, text, _ = encode(tmp_path / "tiles")
    assert status == 1
    assert f"tiles: failed\n    {tmp_path / 'tiles' / 'a.png'}: not an image" in text
    assert sorted(os.listdir(tmp_path / "out")) == ["failures.csv", "summary.csv", "summary.json"]


def test_other_settings_are_refused_unless_overwritten(tiles, encode, tmp_path):
    encode(tiles)
    before = read_features(tmp_path / "out" / "tiles.h5")
    status, text, _ = encode(tiles / "a", tiles, "--mpp", 0.25)
    assert status == 3
    assert "mpp: None there, 0.25 now" in text
    assert "--overwrite" in text
    assert "a: done, 3 embeddings" in text
    assert np.array_equal(read_features(tmp_path / "out" / "tiles.h5").rows, before.rows)
    assert encode(tiles, "--mpp", 0.25, "--overwrite")[0] == 0
    after = read_features(tmp_path / "out" / "tiles.h5")
    assert not np.allclose(after.rows, before.rows)
    assert after.attributes["target_mpp"] == 0.5


def test_mpp_and_target_mpp_do_what_encode_does(tiles, encode, folder, tmp_path):
    encode(tiles, "--mpp", 0.25, "--target-mpp", 0.25)
    # the encoder's own scale: nothing is resampled
    rows = load_encoder(folder, device="cpu").encode(tiles, mpp=0.5, progress=False)
    assert np.array_equal(read_features(tmp_path / "out" / "tiles.h5").rows, rows)
    status, _, errors = encode(tiles, "--target-mpp", 0.25, out="other")
    assert status == 2
    assert "--mpp" in errors


@pytest.mark.parametrize(("output", "shape"), [("mean", (6, 256)), ("dense", (6, 256, 2, 2))])
def test_other_outputs(tiles, encode, tmp_path, output, shape):
    assert encode(tiles, "--output", output)[0] == 0
    assert read_features(tmp_path / "out" / "tiles.h5").rows.shape == shape


@pytest.mark.parametrize("output", ["embedding", "dense"])
def test_views_are_averaged_and_never_mixed(tiles, encode, folder, tmp_path, output):
    assert encode(tiles, "--output", output, "--views", 4)[0] == 0
    found = read_features(tmp_path / "out" / "tiles.h5")
    loaded = load_encoder(folder, device="cpu")
    rows = loaded.encode(tiles, output=output, views=4, progress=False)
    assert np.array_equal(found.rows, rows)
    assert not np.allclose(rows, loaded.encode(tiles, output=output, progress=False), rtol=1e-3)
    assert found.attributes["views"] == 4
    status, text, _ = encode(tiles, "--output", output)
    assert status == 1
    assert "views: 4 there, 1 now" in text


def test_an_output_that_the_encoder_lacks_is_wrong_usage(tiles, encode):
    status, _, errors = encode(tiles, "--output", "cls")
    assert status == 2
    assert "no class token" in errors


def test_json_for_programs(tiles, encode, tmp_path):
    (tiles / "bad.png").write_text("x")
    status, text, _ = encode(tiles, "--json")
    found = json.loads(text)
    assert found["status"] == status == 3
    (one,) = found["inputs"]
    assert (one["status"], one["rows"], one["new"], one["failures"][0]["part"]) == (
        "done",
        6,
        6,
        "bad.png",
    )
    with h5py.File(one["file"]) as file:
        assert len(file["features"]) == 6


def test_a_full_disk_keeps_what_was_done_and_the_next_run_resumes(
    tiles, encode, forwards, tmp_path, monkeypatch
):
    real = job.Journal.append
    kept = []

    def append(self, key, row, tag=b""):
        if len(kept) == 4:
            raise StoreError("cannot write out: the disk is full") from OSError(
                errno.ENOSPC, "full"
            )
        kept.append(key)
        real(self, key, row, tag)

    monkeypatch.setattr(job.Journal, "append", append)
    status, text, errors = encode(tiles)
    assert status == 1
    assert "disk is full" in errors
    assert "tiles: not finished, 4 of 6 done" in text
    assert sorted(os.listdir(tmp_path / "out")) == [
        ".tiles.h5.partial",
        "summary.csv",
        "summary.json",
    ]
    monkeypatch.setattr(job.Journal, "append", real)
    forwards.clear()
    status, _, errors = encode(tiles)
    assert (status, len(forwards)) == (0, 2)
    assert "resuming after 4 of 6" in errors
    assert len(read_features(tmp_path / "out" / "tiles.h5").rows) == 6


def test_an_output_that_cannot_be_written_stops_before_the_work(tiles, encode, tmp_path):
    (tmp_path / "out").write_text("a file")
    status, _, errors = encode(tiles)
    assert status in (1, 2)
    assert "loading" not in errors


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="needs a user whom permissions hold",
)
def test_a_read_only_output_is_an_error(tiles, encode, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    status, _, errors = encode(tiles)
    assert status == 1
    assert "no permission" in errors


def test_an_unexpected_error_fails_one_input(tiles, encode, tmp_path, monkeypatch):
    from pathencoder.features import tiles as module

    real = module.tiles_to_file

    def faulty(encoder, source, *rest, **more):
        if source.name == "a":
            raise TypeError("boom")
        return real(encoder, source, *rest, **more)

    monkeypatch.setattr(module, "tiles_to_file", faulty)
    status, text, _ = encode(tiles / "a", tiles / "b")
    assert status == 3
    assert "TypeError: boom" in text
    assert len(read_features(tmp_path / "out" / "b.h5").rows) == 3


def test_verify_passes_and_fails(folder, tmp_path, capsys):
    assert run(["verify", "--device", "cpu"]) == 0
    out, errors = capsys.readouterr()
    assert "pass" in out
    assert "UserWarning" not in errors
    assert run(["verify", str(folder)]) == 0
    without = shutil.copytree(folder, tmp_path / "without")
    (without / "reference.safetensors").unlink()
    assert run(["verify", str(without)]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_doctor_finds_no_problem_here(capsys):
    status = run(["doctor", "--no-speed", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == 0, found["problems"]
    assert found["versions"]["torch"] != "MISSING"
    weights = found["bundled weights"]
    assert "pathencoder-tiny" in weights
    assert all(text.endswith("whole") for text in weights.values()), weights
    assert run(["doctor", "--no-speed", "--slide", "gone.svs"]) == 1
    assert "PROBLEM" in capsys.readouterr().out


def test_a_table_gives_each_input_its_scale(tiles, encode, folder, tmp_path):
    table = tmp_path / "mpp.csv"
    table.write_text("\ufeffslide,mpp,stain\n/any/where/a,0.25,he\n", encoding="utf-8")
    assert encode(tiles / "a", tiles / "b", "--mpp-csv", table)[0] == 0
    encoder = load_encoder(folder, device="cpu")
    for name, mpp in (("a", 0.25), ("b", None)):
        rows = encoder.encode(tiles / name, mpp=mpp, progress=False)
        assert np.array_equal(read_features(tmp_path / "out" / f"{name}.h5").rows, rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,mpp\na,0.25\n", "lacks the column 'slide'"),
        ("slide,mpp\na,quarter\n", "line 2"),
        ("slide,mpp\na,0.25\n,0.5\n", "line 3"),
        ("slide,mpp\ntiles,0.25\ntiles,0.5\n", "different scales"),
        ("slide,mpp\na,250\n", "0.01 to 100"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_is_done(tiles, encode, tmp_path, text, said):
    (tmp_path / "mpp.csv").write_text(text)
    status, _, errors = encode(tiles, "--mpp-csv", tmp_path / "mpp.csv")
    assert status != 0
    assert said in errors
    assert not (tmp_path / "out").exists()
