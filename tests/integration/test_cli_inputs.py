"""Inputs as the user names them.

links, odd names, what is left out, tables of scales, and a run that only says what it would do.
"""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import small_encoders
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.features.store import read_features


def save(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small_encoders.picture(seed, 80, 80)).save(path, **options)
    return path


def names(tmp_path, out="out"):
    """What a run has written, but for its summary."""
    return sorted(p.name for p in (tmp_path / out).iterdir() if p.stem != "summary")


def test_outputs_are_named_as_the_user_typed(encode, tmp_path):
    save(tmp_path / "blob77" / "1.png")
    (tmp_path / "case_9").symlink_to(tmp_path / "blob77")
    (tmp_path / "case_10").symlink_to(tmp_path / "blob77")
    assert encode(tmp_path / "case_9", tmp_path / "case_10")[0] == 0
    assert names(tmp_path) == ["case_10.h5", "case_9.h5"]


def test_linked_folders_are_walked_and_what_is_left_out_is_named(encode, tmp_path):
    save(tmp_path / "blob" / "1.png")
    save(tmp_path / "in" / "a" / "2.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "blob")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "notes.txt").touch()
    save(tmp_path / "in" / ".hidden.png")
    status, text, _ = encode(tmp_path / "in")
    assert status == 0
    assert read_features(tmp_path / "out" / "in.h5").keys == ["a/2.png", "linked/1.png"]
    for word in (
        "loop: a link to a folder that contains it",
        "gone.png: a link to nothing",
        "1 file is neither",
        ".txt 1",
        "1 hidden",
    ):
        assert word in text, word
    left_out = json.loads(encode(tmp_path / "in", "--json")[1])["left_out"]
    assert {Path(one["path"]).name for one in left_out} == {"loop", "gone.png", "in"}


def test_an_input_that_is_named_twice_counts_once(tiles, encode, tmp_path):
    status, text, _ = encode(tiles, tiles / ".." / "tiles", tiles / "a" / "1.png")
    assert status == 0
    assert "1 input: 1 done. 6 embeddings" in text
    assert names(tmp_path) == ["tiles.h5"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
@pytest.mark.parametrize("verb", ["folder", "file"])
def test_a_name_that_is_no_text_costs_nothing(tiles, encode, tmp_path, verb):
    odd = os.fsdecode(os.fsencode(tiles) + b"/M\xfcller.png")
    save(Path(odd), 8)
    (tiles / os.fsdecode(b"bad\xe4.png")).write_text("no image")
    status, text, _ = encode(tiles if verb == "folder" else odd, "--json")
    found = json.loads(text)
    assert status == (3 if verb == "folder" else 0)
    assert "M\\xfcller.png" in read_features(found["inputs"][0]["file"]).keys
    if verb == "folder":
        assert "bad\\xe4.png" in (tmp_path / "out" / "failures.csv").read_text(encoding="utf-8")
        assert encode(tiles)[0] == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_summary_prints_on_any_terminal(folder, tmp_path, encoding):
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller \xe2\x82\xac"))
    save(place / "\u20ac.png")
    (place / "bad.png").write_text("no image")
    code = "import sys; from pathencoder.cli.main import run; sys.exit(run(sys.argv[1:]))"
    line = [
        sys.executable,
        "-c",
        code,
        "encode",
        str(place),
        "--out",
        str(tmp_path / "out"),
        "--encoder",
        str(folder),
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        line, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False
    )
    assert done.returncode == 3, done.stderr
    assert b"1 embedding" in done.stdout
    assert (tmp_path / "out" / "failures.csv").exists()


def test_a_path_that_cannot_even_be_asked_for_is_one_failure(tiles, encode):
    status, text, _ = encode(tiles, "x" * 5000)
    assert status == 3
    assert "cannot be read (File name too long)" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_input(tiles, encode, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    status, text, _ = encode(tiles, tmp_path / "pipe.png")
    assert status == 3
    assert "neither a file nor a folder" in text


@pytest.mark.parametrize(
    ("slide", "used"),
    [
        ("{folder}", True),
        ("M\u00fcller", True),
        ("elsewhere/M\u00fcller", True),
        ("C:\\data\\M\u00fcller", True),
        ("m\u00dcller", False),
        ("Muller", False),
    ],
)
def test_rows_of_a_table_find_their_input_or_are_named(encode, tmp_path, slide, used):
    place = tmp_path / unicodedata.normalize("NFD", "M\u00fcller")
    save(place / "1.png")
    (tmp_path / "mpp.csv").write_text(
        f"slide;mpp\n{slide.format(folder=place)};0,25\n", encoding="utf-8"
    )
    status, text, _ = encode(place, "--mpp-csv", tmp_path / "mpp.csv")
    assert status == 0
    (file,) = (tmp_path / "out").glob("*.h5")
    assert read_features(file).attributes.get("mpp") == (0.25 if used else None)
    assert ("names no input" in text) is not used
    assert ("Did you mean" in text) is not used


def test_rows_with_paths_tell_equal_names_apart(encode, tmp_path):
    for name in "AB":
        save(tmp_path / name / "s1" / "1.png")
    (tmp_path / "mpp.csv").write_text("slide,mpp\n/far/A/s1,0.5\n/far/B/s1,0.25\ns1,1\n")
    assert (
        encode(tmp_path / "A" / "s1", tmp_path / "B" / "s1", "--mpp-csv", tmp_path / "mpp.csv")[0]
        == 0
    )
    assert {
        name: read_features(tmp_path / "out" / f"{name}-s1.h5").attributes["mpp"] for name in "AB"
    } == {"A": 0.5, "B": 0.25}


def test_a_row_for_one_folder_is_not_taken_for_another_of_its_name(encode, tmp_path):
    for name in "AB":
        save(tmp_path / name / "s1" / "1.png")
    (tmp_path / "mpp.csv").write_text(f"slide,mpp\n{tmp_path}/A/s1,0.5\n")
    assert (
        encode(tmp_path / "A" / "s1", tmp_path / "B" / "s1", "--mpp-csv", tmp_path / "mpp.csv")[0]
        == 0
    )
    assert read_features(tmp_path / "out" / "B-s1.h5").attributes.get("mpp") is None


def test_a_row_for_a_single_image_says_what_to_name(tiles, encode, tmp_path):
    (tmp_path / "mpp.csv").write_text("slide,mpp\n1.png,0.5\n")
    assert "name the folder" in encode(tiles, "--mpp-csv", tmp_path / "mpp.csv")[1]


def test_a_dry_run_says_everything_and_writes_nothing(tiles, encode, tmp_path):
    (tmp_path / "text.svs").write_text("no slide")
    (tiles / "notes.txt").touch()
    line = (tiles, tmp_path / "text.svs", "--mpp", 0.25, "--dry-run")
    status, text, errors = encode(*line)
    assert status == 3
    for word in (
        "tiles: 6 images, 0.25 um/px (given) ->",
        "tiles.h5",
        "text.svs: would fail",
        "Left out",
        "Nothing was written",
    ):
        assert word in text, word
    assert "loading" not in errors
    found = json.loads(encode(*line, "--json")[1])
    kinds = [(one["kind"], one["images"], bool(one["problem"])) for one in found["inputs"]]
    assert kinds == [("tiles", 6, False), ("slide", None, True)]
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_a_scale_that_images_state_is_said_where_it_is_not_used(encode, tmp_path):
    import tifffile

    for n in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / "in" / f"{n}.tif",
            small_encoders.picture(n),
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
        )
    status, text, _ = encode(tmp_path / "in")
    assert status == 0
    assert "3 of 3 TIFF images state 0.25 um/px; all are resized whole: --mpp 0.25" in text
    assert "um/px" not in encode(tmp_path / "in", "--mpp", 0.25, out="other")[1]


def test_images_that_are_coarser_than_the_encoder_are_said(tiles, encode):
    assert "enlarged 4 times" in encode(tiles, "--mpp", 2)[1]


def test_pictures_without_a_slide_are_said(tiles, encode, tmp_path):
    status, text, _ = encode(tiles, "--pictures")
    assert status == 0
    assert "Note: --pictures draws slides, and no input is a slide" in text


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
def test_an_output_folder_of_any_name(tiles, encode, tmp_path):
    odd = os.fsdecode(b"M\xfcller")
    assert encode(tiles, out=odd)[0] == 0
    assert encode(tiles, out=odd)[1].splitlines()[0].startswith(f"{tiles}: done before")


def test_workers_change_no_number(tiles, encode, tmp_path):
    assert encode(tiles, "--workers", 3)[0] == 0
    assert encode(tiles, "--workers", 1, out="one")[0] == 0
    rows = [read_features(tmp_path / out / "tiles.h5").rows for out in ("out", "one")]
    assert (rows[0] == rows[1]).all()


def test_the_precision_that_was_used_is_in_the_file(tiles, encode, tmp_path):
    assert encode(tiles, "--precision", "bf16")[0] == 0
    said = read_features(tmp_path / "out" / "tiles.h5").attributes
    assert (said["precision"], said["runtime"], said["device"]) == ("bf16", "torch", "cpu")
    status, text, _ = encode(tiles)
    assert status == 1
    assert "precision: bf16 there, fp32 now" in text


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
def test_two_names_that_print_the_same_are_both_reported(encode, tmp_path):
    (tmp_path / "in").mkdir()
    both = [tmp_path / "in" / os.fsdecode(name) for name in (b"\xff.png", b"\\xff.png")]
    for seed, path in enumerate(both):
        save(path, seed)
    status, text, _ = encode(*both)
    assert status == 3
    assert "the name of another image here prints the same: rename one of them" in text
    folders = [tmp_path / os.fsdecode(name) for name in (b"\xff", b"\\xff")]
    for seed, path in enumerate(folders):
        save(path / "1.png", seed)
    assert encode(*folders, out="folders")[0] == 0
    assert len(names(tmp_path, "folders")) == 2


def test_tiles_that_are_coarser_than_the_encoder_are_said_before_the_work(tiles, encode):
    assert "enlarged 4 times" in encode(tiles, "--mpp", 2)[2]
    assert "enlarged 4 times" in encode(tiles, "--mpp", 2, "--dry-run", out="dry")[1]


@pytest.mark.parametrize("verb", ["encode", "nuclei"])
def test_results_are_not_written_to_a_folder_that_is_named_like_a_url(
    verb, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), (200, 100, 150)).save("a.png")
    assert run([verb, "a.png", "--out", "s3://bucket/out"]) == 1
    assert "a URL cannot be written to" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_unknown_scheme_is_said(tmp_path, capsys):
    assert run(["encode", "hdfs://host/a.svs", "--out", str(tmp_path)]) == 2
    assert "hdfs:// cannot be read: s3://, gs://, az:// and https://" in capsys.readouterr().err
