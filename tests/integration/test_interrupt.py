"""Ctrl-C and a hard kill: whole files only, status 130, and the next run resumes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small_encoders
from PIL import Image

from pathencoder.cli.main import run
from pathencoder.encoder import load_encoder
from pathencoder.errors import StoreError
from pathencoder.features import writer
from pathencoder.features.journal import Journal
from pathencoder.features.store import read_features

COUNT = 40
# the command with a pause after every row, so that there is time to kill it
SLOW = """
import sys, time
from pathencoder.features.journal import Journal
from pathencoder.cli.main import run
append = Journal.append
def slow(self, key, row, tag=b""):
    append(self, key, row, tag)
    self.flush()
    time.sleep(0.05)
Journal.append = slow
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def listening_to_ctrl_c():
    """Also where the suite was started by nohup or in the background, which ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder of tiles, a small encoder, and the arguments of the command."""
    (tmp_path / "tiles").mkdir()
    for n in range(COUNT):
        Image.fromarray(small_encoders.picture(n)).save(tmp_path / "tiles" / f"{n}.png")
    small_encoders.encoder("cnn").save_pretrained(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    return tmp_path, [
        "encode",
        "tiles",
        "--out",
        "out",
        "--encoder",
        "./small",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]


def wait_for_rows(path, process):
    """Until the journal holds a few rows."""
    partial = path / "out" / ".tiles.h5.partial"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if partial.exists() and partial.stat().st_size > 8000:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"no rows came: {process.communicate()}")


def finish(path, arguments, capsys):
    """The same command again: the rest is done, and all rows are right."""
    assert run(arguments) == 0
    assert "resuming after" in capsys.readouterr().err
    rows, keys = load_encoder(path / "small", device="cpu").encode(
        path / "tiles", return_keys=True, progress=False
    )
    found = read_features(path / "out" / "tiles.h5")
    assert found.keys == keys
    assert np.array_equal(found.rows, rows)
    assert sorted(os.listdir(path / "out")) == ["summary.csv", "summary.json", "tiles.h5"]


def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(work, monkeypatch, capsys):
    path, arguments = work
    real = Journal.append

    def interrupting(self, key, row, tag=b""):
        real(self, key, row, tag)
        if len(self) == 7:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "append", interrupting)
    assert run(arguments) == 130
    out, errors = capsys.readouterr()
    assert "Traceback" not in errors
    assert "same command resumes" in errors
    assert "tiles: not finished, 6 of 40 done" in out
    assert sorted(os.listdir(path / "out")) == [".tiles.h5.partial", "summary.csv", "summary.json"]
    monkeypatch.setattr(Journal, "append", real)
    finish(path, arguments, capsys)


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (StoreError("the disk is full"), 1)]
)
def test_a_stop_with_overwrite_says_that_the_same_command_starts_again(
    work, monkeypatch, capsys, error, status
):
    _, arguments = work

    def stopping(*_):
        raise error

    monkeypatch.setattr(Journal, "append", stopping)
    for anew in (False, True):
        assert run([*arguments, *(["--overwrite"] if anew else [])]) == status
        errors = capsys.readouterr().err
        assert ("the same command starts again with all inputs" in errors) is anew
        assert ("Finished work is kept: the same command resumes" in errors) is (
            status == 130 and not anew
        )


def test_an_interrupt_while_the_file_is_written_leaves_no_half(work, monkeypatch, capsys):
    path, arguments = work
    real = writer._attributes

    def interrupting(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(writer, "_attributes", interrupting)
    assert run(arguments) == 130
    assert sorted(os.listdir(path / "out")) == [".tiles.h5.partial", "summary.csv", "summary.json"]
    monkeypatch.setattr(writer, "_attributes", real)
    capsys.readouterr()
    finish(path, arguments, capsys)


@pytest.mark.slow
def test_a_hard_kill_loses_no_finished_row(work, capsys):
    path, arguments = work
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_rows(path, process)
    process.kill()
    process.communicate()
    left = [f".tiles.h5.partial{end}" for end in ("", ".lease", ".lock")]
    assert sorted(os.listdir(path / "out")) == left
    finish(path, arguments, capsys)
