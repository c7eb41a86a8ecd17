"""Slides one after the other, for several encoders and on several devices."""

import csv
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import small_encoders
from feature_damage import damage_rows
from small_slides import MemorySlide, section

from pathencoder import runtime
from pathencoder.cli.main import run
from pathencoder.features import slide
from pathencoder.features.journal import Journal, lock_of
from pathencoder.features.store import read_features

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of encoders; the last one's tiles are at another scale."""
    folder = tmp_path_factory.mktemp("encoders")
    made = {
        "small-cnn": small_encoders.encoder("cnn"),
        "small-vit": small_encoders.encoder("vit"),
        "coarse": small_encoders.encoder("cnn", name="coarse", mpp=1.0),
    }
    for name, encoder in made.items():
        encoder.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Three slides in memory that take the place of files."""
    made = {}
    for number, name in enumerate(NAMES):
        path = tmp_path / "in" / f"{name}.svs"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 10)
        made[path] = MemorySlide(section(seed=number), path=path)
    monkeypatch.setattr("pathencoder.features.slide.open_slide", lambda path: made[Path(path)])
    return made


@pytest.fixture
def encode(tmp_path, encoders, scans, capsys):
    """Runs the command on the three slides; returns (status, outcomes, standard error)."""

    def call(*names, out="out", device="cpu", more=()):
        line = ["encode", str(tmp_path / "in"), "--out", str(tmp_path / out), "--device", device]
        for name in names:
            line += ["--encoder", encoders[name]]
        status = run([*line, "--json", *more])
        text, errors = capsys.readouterr()
        return status, json.loads(text)["inputs"], errors

    return call


def rows_in(folder):
    return {path.stem: read_features(path) for path in sorted(folder.glob("*.h5"))}


def same(left, right):
    assert list(left) == list(right) == list(NAMES)
    for name in NAMES:
        assert len(left[name].rows)
        assert np.array_equal(left[name].rows, right[name].rows)
        assert np.array_equal(left[name].coords, right[name].coords)


def reads(scans):
    found = sum(scan.reads for scan in scans.values())
    for scan in scans.values():
        scan.reads = 0
    return found


def test_each_encoder_has_the_files_that_it_would_have_alone(encode, scans, tmp_path):
    alone = {}
    for name in ("small-cnn", "small-vit", "coarse"):
        assert encode(name, out=name)[0] == 0
        alone[name] = reads(scans)
    status, outcomes, _ = encode("small-cnn", "small-vit", "coarse")
    assert status == 0
    assert [outcome["encoder"] for outcome in outcomes[:3]] == ["small-cnn", "small-vit", "coarse"]
    for name in alone:
        same(rows_in(tmp_path / "out" / name), rows_in(tmp_path / name))
    together = reads(scans)
    assert together < alone["small-cnn"] + alone["coarse"]  # the overview is read once
    encode("small-cnn", "small-vit", out="pair")
    assert reads(scans) == alone["small-cnn"] == alone["small-vit"]  # and each tile, too
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        listed = [(row["name"], row["encoder"], row["status"]) for row in csv.DictReader(stream)]
    assert len(listed) == 9
    assert ("b.svs", "small-vit", "done") in listed


def test_each_file_is_resumed_by_itself(encode, scans, tmp_path, monkeypatch):
    assert encode("small-cnn", "small-vit")[0] == 0
    whole = {name: rows_in(tmp_path / "out" / name) for name in ("small-cnn", "small-vit")}
    (tmp_path / "out" / "small-vit" / "b.h5").unlink()
    _, outcomes, _ = encode("small-cnn", "small-vit")
    statuses = [outcome["status"] for outcome in outcomes]
    assert statuses == ["before", "before", "before", "done", "before", "before"]
    same(rows_in(tmp_path / "out" / "small-vit"), whole["small-vit"])

    shutil.rmtree(tmp_path / "out" / "small-cnn")
    (tmp_path / "out" / "small-vit" / "a.h5").unlink()
    real = Journal.append

    def interrupting(self, key, row, tag=b""):
        real(self, key, row, tag)
        if len(self) == 7 and "small-vit" in str(self.path):
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupting)
    assert encode("small-cnn", "small-vit")[0] == 130
    monkeypatch.setattr(Journal, "append", real)
    (tmp_path / "out" / "small-cnn" / ".a.h5.partial").unlink()  # one has rows, the other has none
    assert encode("small-cnn", "small-vit")[0] == 0
    for name, found in whole.items():
        same(rows_in(tmp_path / "out" / name), found)


def test_what_fails_one_encoder_does_not_stop_the_other(encode, tmp_path):
    assert encode("small-cnn", "small-vit")[0] == 0
    shutil.rmtree(tmp_path / "out" / "small-cnn")
    (tmp_path / "out" / "small-vit" / "b.h5").write_bytes(b"no features")
    status, outcomes, _ = encode("small-cnn", "small-vit")
    assert status == 3
    assert [(o["encoder"], o["status"]) for o in outcomes[2:4]] == [
        ("small-cnn", "done"),
        ("small-vit", "failed"),
    ]
    assert (tmp_path / "out" / "small-vit" / "b.h5").read_bytes() == b"no features"


def test_a_damaged_tile_is_listed_once_and_missing_in_each_file(encode, scans, tmp_path):
    scans[tmp_path / "in" / "b.svs"].broken = ((256, 256, 300, 300),)
    assert encode("small-cnn", "small-vit")[0] == 3
    for name in ("small-cnn", "small-vit"):
        found = rows_in(tmp_path / "out" / name)["b"]
        assert [failure.part for failure in found.failures] == ["256,256"]
    with (tmp_path / "out" / "failures.csv").open(newline="") as stream:
        assert [row["part"] for row in csv.DictReader(stream)] == ["256,256"]


def test_the_next_slide_is_opened_while_one_is_encoded(encode, scans, tmp_path, monkeypatch):
    opened, by = {path.stem: threading.Event() for path in scans}, {}

    def opening(path):
        by[Path(path).stem] = threading.current_thread().name
        opened[Path(path).stem].set()
        return scans[Path(path)]

    real = Journal.append

    def waiting(self, key, row, tag=b""):
        real(self, key, row, tag)
        if self.path.name == ".a.h5.partial":
            assert opened["b"].wait(10)
            assert not opened["c"].is_set()

    monkeypatch.setattr("pathencoder.features.slide.open_slide", opening)
    monkeypatch.setattr(Journal, "append", waiting)
    assert encode("small-cnn")[0] == 0
    assert all(name.startswith("pathencoder-ahead") for name in by.values())


def test_a_slide_that_was_busy_when_it_was_prepared_is_done_at_its_turn(
    encode, tmp_path, monkeypatch
):
    partial = tmp_path / "out" / ".b.h5.partial"
    partial.parent.mkdir()
    other = lock_of(partial)
    looked, real = threading.Event(), slide.refuse_busy

    def looking(path):
        try:
            real(path)
        finally:
            looked.set() if path == partial else None

    appending = Journal.append

    def waiting(self, key, row, tag=b""):
        appending(self, key, row, tag)
        if self.path.name == ".a.h5.partial" and other.held:
            assert looked.wait(10)
            other.release()

    monkeypatch.setattr(slide, "refuse_busy", looking)
    monkeypatch.setattr(Journal, "append", waiting)
    _, outcomes, _ = encode("small-cnn")
    assert [outcome["status"] for outcome in outcomes] == ["done", "done", "done"]


def test_two_devices_share_the_slides_and_give_the_same(encode, tmp_path, monkeypatch):
    encode("small-cnn", out="one")
    threads, real = {}, runtime.Runner._forward

    def short_of_memory(self, pixels):
        lane = threads.setdefault(threading.get_ident(), len(threads))
        if lane == 0 and len(pixels) > 2:
            raise RuntimeError("out of memory: made so")
        return real(self, pixels)

    monkeypatch.setattr(runtime.Runner, "_forward", short_of_memory)
    status, outcomes, _ = encode("small-cnn", device="cpu,cpu")
    assert status == 0
    assert [Path(outcome["input"]).stem for outcome in outcomes] == list(NAMES)
    assert len(threads) == 2
    same(rows_in(tmp_path / "out"), rows_in(tmp_path / "one"))
    note = "out of memory on cpu: batches of 2 from there on"
    with_note = [outcome for outcome in outcomes if note in outcome["notes"]]
    assert 0 < len(with_note) < len(NAMES)
    for outcome in with_note:
        assert note in read_features(outcome["file"]).notes


def test_an_input_that_fails_on_one_device_is_one_failure(encode, scans, tmp_path):
    (tmp_path / "in" / "b.svs").unlink()
    (tmp_path / "in" / "b.svs").mkdir()
    scans[tmp_path / "in" / "a.svs"].properties = {}
    status, outcomes, _ = encode("small-cnn", device="cpu,cpu")
    assert status == 3
    found = {Path(outcome["input"]).name: outcome["status"] for outcome in outcomes}
    assert (found["a.svs"], found["c.svs"]) == ("failed", "done")


def test_devices_that_are_not_there_are_wrong_usage(tmp_path, encoders, scans, capsys):
    line = ["encode", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    for device in ("cpu,cuda:99", "cuda:all" if not runtime.torch.cuda.is_available() else "x"):
        assert run([*line, "--encoder", encoders["small-cnn"], "--device", device]) == 2
        assert "device" in capsys.readouterr().err


# the maps of b and c are drawn over slides that OpenSlide reads
@pytest.mark.parametrize("option", [pytest.param("--pictures", marks=pytest.mark.full), "--qc"])
@pytest.mark.parametrize("names", [("small-cnn",), ("small-cnn", "small-vit")])
def test_a_damaged_file_fails_alone_where_it_is_read(encode, tmp_path, option, names):
    folder = tmp_path / "out" / ("small-cnn" if len(names) > 1 else "")
    assert encode(*names)[0] == 0
    damage_rows(folder / "a.h5")
    damaged = (folder / "a.h5").read_bytes()
    status, found, errors = encode(*names, more=[option])
    assert (status, errors.count("error:")) == (3, 0)
    failed = [one for one in found if one["status"] == "failed"]
    assert [(Path(one["input"]).name, one["encoder"]) for one in failed] == [("a.svs", "small-cnn")]
    assert "its rows are not what was written" in failed[0]["failures"][0]["reason"]
    assert len(found) - len(failed) == 3 * len(names) - 1
    assert (folder / "a.h5").read_bytes() == damaged
    (folder / "a.h5").unlink()
    assert encode(*names, more=[option])[0] == 0
