"""The output folder of `pathencoder encode`: in an input, impossible, shared, of another layout."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import small_encoders
from PIL import Image
from small_slides import section, write_tiff

from pathencoder.cli.main import run
from pathencoder.encoder import load_encoder
from pathencoder.features import tiles as tiles_module
from pathencoder.features.store import read_features

# the command, which pauses after every row, so that another process can start meanwhile
SLOW = """
import sys, time
from pathencoder.features.journal import Journal
from pathencoder.cli.main import run
append = Journal.append
def slow(self, key, row, tag=b""):
    append(self, key, row, tag)
    self.flush()
    time.sleep(0.3)
Journal.append = slow
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize("out", ["tiles", "tiles/features"])
def test_outputs_inside_the_input_are_not_reported(tiles, encode, tmp_path, out):
    (tiles / "bad.png").write_text("no image")
    assert encode(tiles, out=out)[0] == 3
    (tmp_path / out / ".tiles.h5.partial.lock").touch()  # as a killed process leaves it
    status, text, _ = encode(tiles, out=out)
    assert (status, "Left out" in text) == (3, False)
    assert len(read_features(tmp_path / out / "tiles.h5").rows) == 6
    (tmp_path / out / "theirs.h5").write_bytes(b"of another program")
    assert "Left out: " in encode(tiles, out=out)[1]


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("file/x", "a part of that path is a file"),
        ("link", "a file, or a link to nothing, is in the way"),
        ("loop/x", "leads to itself"),
        ("n" * 300, "the name is too long"),
    ],
)
def test_an_output_folder_that_cannot_be_made(tiles, encode, tmp_path, out, reason):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    status, text, errors = encode(tiles, out=out)
    assert (status, text) == (1, "")
    assert "error: cannot use the folder" in errors
    assert reason in errors
    assert "same command" not in errors  # nothing was done that could be resumed
    assert "loading" not in errors


@pytest.mark.parametrize("arguments", [["", "--out", "out"], ["tiles", "--out", ""]])
def test_an_empty_path_is_not_the_current_folder(tiles, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(["encode", *arguments]) == 2
    assert '"" is not a path' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["tiles"]


@pytest.mark.parametrize("name", ["./missing", "no-such-encoder"])
def test_an_encoder_that_does_not_exist_is_wrong_usage(tiles, tmp_path, capsys, name):
    for more in ([], ["--dry-run"]):
        line = ["encode", str(tiles), "--out", str(tmp_path / "out"), "--encoder", name, *more]
        assert run(line) == 2
        assert name.removeprefix("./") in capsys.readouterr().err


def test_images_that_vanish_after_they_were_listed_fail_alone(tiles, encode, monkeypatch):
    real = tiles_module.tiles_to_file

    def vanishing(*arguments, **options):
        (tiles / "a" / "1.png").unlink()
        return real(*arguments, **options)

    monkeypatch.setattr(tiles_module, "tiles_to_file", vanishing)
    status, text, _ = encode(tiles)
    assert status == 3
    assert "tiles: done, 5 embeddings" in text
    assert "a/1.png: cannot be read (No such file or directory)" in text


def test_two_processes_on_one_output_both_end_well(tiles, folder, tmp_path, capsys):
    for n in range(3):
        (tmp_path / "more").mkdir(exist_ok=True)
        Image.fromarray(small_encoders.picture(n)).save(tmp_path / "more" / f"{n}.png")
    line = ["encode", str(tiles), str(tmp_path / "more"), "--out", str(tmp_path / "out")]
    line += ["--encoder", str(folder), "--device", "cpu", "--batch-size", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "out" / ".tiles.h5.partial"
    while not (partial.exists() and partial.stat().st_size) and process.poll() is None:
        time.sleep(0.02)
    status = run(line)
    text, _ = capsys.readouterr()
    theirs, errors = process.communicate()
    assert (status, process.returncode) == (0, 0), errors
    assert f"{tiles}: left to another process" in text
    assert f"{tmp_path / 'more'}: done" in text
    assert f"{tiles}: done, 6 embeddings" in theirs
    assert f"{tmp_path / 'more'}: done before" in theirs
    files = sorted(os.listdir(tmp_path / "out"))
    assert files == ["more.h5", "summary.csv", "summary.json", "tiles.h5"]
    rows = load_encoder(folder, device="cpu").encode(tiles, progress=False)
    assert np.array_equal(read_features(tmp_path / "out" / "tiles.h5").rows, rows)


@pytest.mark.full
def test_another_layout_of_a_slide_is_refused_or_said(encode, tmp_path):
    slide = write_tiff(tmp_path / "s.tiff", section(), mpp=0.5)
    line = (slide, "--as", "slides")
    assert encode(*line)[0] == 0
    before = (tmp_path / "out" / "s.h5").read_bytes()
    for more in ([], ["--dry-run"]):
        status, text, _ = encode(*line, "--layout", "stamp", *more)
        assert status == (3 if more else 1)
        assert "has the layout trident, not stamp" in text
        assert "--overwrite" in text
    assert (tmp_path / "out" / "s.h5").read_bytes() == before
    status, text, _ = encode(*line, "--layout", "clam")  # other files: nothing is replaced
    assert status == 0
    assert f"{tmp_path / 'out' / 's.h5'}, of another layout, is kept" in text
    # the random convolutions reach numbers that float16 does not hold
    status, text, _ = encode(*line, "--layout", "stamp", "--overwrite")
    assert (status, "the largest number of its rows is" in text) == (1, True)
    assert (tmp_path / "out" / "s.h5").read_bytes() == before
    small_encoders.encoder("vit").save_pretrained(tmp_path / "vit")
    more = ["--layout", "stamp", "--overwrite", "--encoder", tmp_path / "vit"]
    out = ["--out", tmp_path / "out", "--device", "cpu"]
    assert run([str(a) for a in ("encode", *line, *more, *out)]) == 0
    assert read_features(tmp_path / "out" / "s.h5").layout == "stamp"


@pytest.mark.full
def test_clam_files_of_another_program_are_not_replaced(encode, tmp_path):
    import h5py

    slide = write_tiff(tmp_path / "s.tiff", section(), mpp=0.5)
    theirs = tmp_path / "out" / "h5_files" / "s.h5"
    theirs.parent.mkdir(parents=True)
    with h5py.File(theirs, "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
    before = theirs.read_bytes()
    status, text, _ = encode(slide, "--as", "slides", "--layout", "clam")
    assert status == 1
    assert "was not written by pathencoder and is not changed" in text
    assert theirs.read_bytes() == before
    theirs.unlink()
    tensor = tmp_path / "out" / "pt_files" / "s.pt"
    tensor.parent.mkdir()
    tensor.write_bytes(b"of CLAM")
    for more in ([], ["--dry-run"]):
        status, text, _ = encode(slide, "--as", "slides", "--layout", "clam", *more)
        assert status == (3 if more else 1)
        assert f"{tensor} exists without {theirs}" in text
    assert (tensor.read_bytes(), theirs.exists()) == (b"of CLAM", False)


@pytest.mark.full
def test_notes_on_scale_come_before_the_work_and_in_a_dry_run(encode, tmp_path):
    for n in range(2):  # coarser than the encoder's 0.5 um/px
        (tmp_path / "in").mkdir(exist_ok=True)
        write_tiff(tmp_path / "in" / f"{n}.tiff", section(seed=n), mpp=1.0)
    line = (tmp_path / "in", "--as", "slides")
    status, text, _ = encode(*line, "--dry-run")
    assert (status, text.count("enlarged 2 times")) == (0, 2)
    status, text, errors = encode(*line)
    assert (status, text.count("enlarged 2 times")) == (0, 2)
    assert errors.count("enlarged 2 times") == 1  # the same sentence once for all slides
    assert errors.index("enlarged 2 times") < errors.index("[2/2]")
    assert "enlarged" not in encode(*line)[2]  # done before
    _, _, errors = encode(*line, "--target-mpp", 1, out="coarse")
    assert "read at 1 um/px, and the encoder was trained at 0.5" in errors


def test_quality_of_tiles_without_slides_is_noted(encode, tiles):
    status, text, _ = encode(tiles, "--qc")
    assert status == 0
    assert "--qc measures the tiles of slides alone" in text
