"""Lists of the files of sets: written and read, and what differs in a copy."""

import dataclasses
import gzip

import pytest
from click.testing import CliRunner
from small_tile_sets import write_set

from pathencoder.errors import ConfigError
from training import evaluate
from training.evaluation import set_lists
from training.evaluation.known_sets import KNOWN

pytestmark = pytest.mark.full


@pytest.fixture
def entries(tmp_path):
    return set_lists.entries_of(write_set(tmp_path / "mine") / "labels.csv")


@pytest.fixture
def listed(tmp_path, entries, monkeypatch):
    monkeypatch.setattr(set_lists, "FOLDER", tmp_path)
    set_lists.write_list(tmp_path / "mine.csv.gz", entries)
    return entries


def test_a_list_is_read_as_written_and_repeats(tmp_path, listed):
    read = set_lists.read_list(tmp_path / "mine.csv.gz")
    assert [(e.file, e.label, e.group, e.split) for e in read] == [
        (e.file, e.label, e.group, e.split) for e in listed
    ]
    assert all(a.sha256 == b.sha256[:16] for a, b in zip(read, listed, strict=True))
    before = (tmp_path / "mine.csv.gz").read_bytes()
    set_lists.write_list(tmp_path / "mine.csv.gz", reversed(listed))
    assert (tmp_path / "mine.csv.gz").read_bytes() == before


def test_differences_are_counted(listed):
    assert set_lists.differences("mine", listed) == ""
    other = [
        dataclasses.replace(listed[0], sha256="0" * 64),
        dataclasses.replace(listed[1], label="another"),
        dataclasses.replace(listed[2], file="more.png"),
        *listed[3:],
    ]
    said = set_lists.differences("mine", other)
    for part in ("1 missing", "1 added", "1 of other content", "1 with another label"):
        assert part in said
    assert set_lists.differences("unlisted", other) == ""


def test_the_digest_is_of_everything_but_the_source(entries):
    first = set_lists.digest(entries)
    moved = [dataclasses.replace(e, source="elsewhere") for e in reversed(entries)]
    assert set_lists.digest(moved) == first
    changed = [dataclasses.replace(entries[0], group="another"), *entries[1:]]
    assert set_lists.digest(changed) != first


def test_a_missing_file_is_named(tmp_path, entries):
    (tmp_path / "mine/3.png").unlink()
    with pytest.raises(ConfigError, match=r"3\.png cannot be read"):
        set_lists.entries_of(tmp_path / "mine/labels.csv")


@pytest.mark.parametrize("known", KNOWN, ids=lambda s: s.name)
def test_every_known_set_has_a_list_in_the_repository(known):
    file = set_lists.FOLDER / f"{known.name}.csv.gz"
    rows = set_lists.read_list(file)
    assert rows == sorted(rows)
    assert len({r.file for r in rows}) == len(rows) > 20
    assert all(len(r.sha256) == 16 and not r.file.startswith("/") for r in rows)
    assert b"shared" not in gzip.decompress(file.read_bytes())


def test_the_command_says_where_sets_are_had(tmp_path):
    done = CliRunner().invoke(evaluate.main, ["sets", "--data", str(tmp_path)])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) == len(KNOWN)
    assert "https://github.com/DeepMicroscopy/AMi-Br" in done.output
