"""One file, copied in spite of broken connections, kills, replacements and wrong checksums."""

import contextlib
import hashlib
import threading

import numpy as np
import pytest

from pathencoder.errors import StoreError
from training.archive.http import SourceError, Stopped, Unanswered
from training.archive.transfer import Broken, Expected, Part, Replaced, transfer

DATA = np.random.default_rng(0).bytes(100_000)


class Origin:
    """A source that can break, change and refuse parts.

    Attributes:
        breaks: How many of the next openings break after `after` bytes.
        starts: The byte of each opening.
    """

    def __init__(self, data=DATA, version="1"):
        self.data, self.version = data, version
        self.breaks, self.after, self.parts = 0, 30_000, True
        self.starts = []
        self.on_open = lambda: None

    @contextlib.contextmanager
    def open(self, start, version):
        self.on_open()
        self.starts.append(start)
        same = self.parts and version == self.version
        begin = start if same else 0
        yield Part(begin, len(self.data), self.version, self.chunks(self.data[begin:]))

    def chunks(self, data):
        self.breaks -= 1
        if self.breaks >= 0:
            yield data[: self.after]
            raise Broken("reset")
        for at in range(0, len(data), 8000):
            yield data[at : at + 8000]


@pytest.fixture
def origin():
    return Origin()


def run(origin, place, **expected):
    return transfer(origin.open, place, Expected("a", **expected), pause=0.0)


def sizes_of(folder):
    return {p.name: p.stat().st_size for p in folder.iterdir()}


def test_a_file_arrives_whole_and_nothing_else_stays(origin, tmp_path):
    place = tmp_path / "in" / "a.svs"
    md5 = hashlib.md5(DATA).hexdigest()
    assert run(origin, place, size=len(DATA), md5=md5) == hashlib.sha256(DATA).hexdigest()
    assert place.read_bytes() == DATA
    assert sizes_of(place.parent) == {"a.svs": len(DATA)}


def test_broken_connections_cost_only_what_had_not_come(origin, tmp_path):
    origin.breaks = 3
    run(origin, tmp_path / "a", size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA
    assert origin.starts == [0, 30_000, 60_000, 90_000]


def test_another_process_goes_on_where_one_was_killed(origin, tmp_path):
    def silent_after_the_first():
        origin.after = 0 if origin.starts else 40_000

    origin.breaks, origin.on_open = 99, silent_after_the_first
    with pytest.raises(Unanswered, match="broke off 6 times"):
        run(origin, tmp_path / "a")
    again = Origin()
    run(again, tmp_path / "a", size=len(DATA))
    assert again.starts == [40_000]
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_file_that_was_replaced_in_between_begins_anew(tmp_path):
    first = Origin()
    first.breaks = 99
    first.on_open = lambda: setattr(first, "after", 0) if first.starts else None
    with pytest.raises(SourceError):
        run(first, tmp_path / "a")
    other = Origin(DATA[::-1], version="2")
    run(other, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


def test_the_rest_of_another_file_is_not_joined_to_what_came(tmp_path):
    """A server that gives the part that is asked for, whatever version came before."""
    first = Origin()
    first.breaks = 99
    first.on_open = lambda: setattr(first, "after", 0) if first.starts else None
    with pytest.raises(SourceError):
        run(first, tmp_path / "a")
    other = Origin(DATA[::-1], version="2")

    @contextlib.contextmanager
    def careless(start, _):
        yield Part(start, len(DATA), "2", other.chunks(other.data[start:]))

    transfer(careless, tmp_path / "a", Expected("a"), pause=0.0)
    assert (tmp_path / "a").read_bytes() == DATA[::-1]


def test_a_source_without_parts_sends_it_all_again(origin, tmp_path):
    origin.breaks, origin.parts = 2, False
    run(origin, tmp_path / "a", size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA


def test_another_size_than_was_listed_is_a_replacement(origin, tmp_path):
    with pytest.raises(Replaced, match="it was replaced"):
        run(origin, tmp_path / "a", size=len(DATA) + 1)
    assert sizes_of(tmp_path) == {}


def test_a_wrong_checksum_is_fetched_again_once(origin, tmp_path):
    damaged = bytearray(DATA)
    damaged[5] ^= 1
    origin.data = bytes(damaged)
    origin.on_open = lambda: setattr(origin, "data", DATA) if origin.starts else None
    run(origin, tmp_path / "a", sha256=hashlib.sha256(DATA).hexdigest())
    assert (tmp_path / "a").read_bytes() == DATA
    origin.data, origin.on_open = bytes(damaged), lambda: None
    for wrong in ({"md5": hashlib.md5(DATA).hexdigest()}, {"sha256": "0" * 64}):
        with pytest.raises(SourceError, match="twice: it is damaged"):
            run(origin, tmp_path / "b", **wrong)
    assert sizes_of(tmp_path) == {"a": len(DATA)}


def test_a_stop_keeps_what_came(origin, tmp_path):
    stop = threading.Event()
    origin.on_open = stop.set
    with pytest.raises(Stopped):
        transfer(origin.open, tmp_path / "a", Expected("a"), stop=stop)
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_said_before_it_is_full(origin, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 50_000})
    monkeypatch.setattr("training.archive.transfer.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"too little room.*Make room"):
        run(origin, tmp_path / "a")


def test_a_file_that_is_shorter_than_its_source_says_is_no_broken_connection(origin, tmp_path):
    @contextlib.contextmanager
    def short(start, _):
        yield Part(start, len(DATA), "1", iter([DATA[start:-10]] if not start else []))

    with pytest.raises(SourceError, match="it ended early 6 times") as error:
        transfer(short, tmp_path / "a", Expected("a"), pause=0.0)
    assert not isinstance(error.value, Unanswered)
