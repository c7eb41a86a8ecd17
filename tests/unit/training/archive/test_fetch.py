"""A folder of downloads: what is there, what came, what is missing and why."""

import csv
import hashlib
import threading

import pytest

from pathencoder.errors import SlideError, StoreError
from pathencoder.remote.objects import Unreachable
from training.archive.fetch import MISSING, fetch, summary
from training.archive.http import Refused, SourceError, Stopped, Unanswered
from training.archive.row import Row
from training.archive.sources.base import verify_file
from training.archive.sources.folder import Folder

pytestmark = pytest.mark.full


class Shelf:
    """A source that holds slides in memory.

    Attributes:
        errors: source_id -> the error of its fetch.
        asked: The slides that were asked for.
    """

    name, local = "shelf:", False

    def __init__(self, files):
        self.files, self.errors, self.asked = dict(files), {}, []
        self.on_fetch = lambda: None
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def rows(self):
        return [
            Row(slide=key, src="shelf:", source_id=key, file=f"shelf/{key}.svs", size=len(data))
            for key, data in self.files.items()
        ]

    def fetch(self, row, place, stop):
        with self.lock:
            self.asked.append(row.source_id)
            self.now += 1
            self.most = max(self.most, self.now)
        self.on_fetch()
        with self.lock:
            self.now -= 1
        if row.source_id in self.errors:
            raise self.errors[row.source_id]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self.files[row.source_id])
        return hashlib.sha256(self.files[row.source_id]).hexdigest()

    def verify(self, row, place):
        return verify_file(row, place)


@pytest.fixture
def shelf():
    return Shelf({name: name.encode() * 100 for name in "abcdef"})


def run(shelf, out, rows=None, **options):
    return fetch(rows or shelf.rows(), out, sources={"shelf:": shelf}, **options)


def test_slides_come_and_a_second_run_asks_for_none(shelf, tmp_path):
    found = run(shelf, tmp_path)
    assert (found.came, found.there, found.missing) == (6, 0, [])
    assert (tmp_path / "shelf" / "a.svs").read_bytes() == b"a" * 100
    assert found.sha256["shelf:", "a"] == hashlib.sha256(b"a" * 100).hexdigest()
    again = run(shelf, tmp_path)
    assert (again.came, again.there, again.sha256) == (0, 6, found.sha256)
    assert len(shelf.asked) == 6
    (tmp_path / "shelf" / "a.svs").write_bytes(b"b")
    assert run(shelf, tmp_path).came == 1


def test_what_is_missing_is_listed_with_the_reason(shelf, tmp_path):
    shelf.errors = {"b": Refused("b: access is refused (403): ask", 403), "c": SourceError("gone")}
    rows = shelf.rows()
    rows[3] = Row(**{**fields(rows[3]), "problem": "a DICOM set"})
    rows[4] = Row(**{**fields(rows[4]), "use": False})
    found = run(shelf, tmp_path, rows)
    assert found.came == 2
    with (tmp_path / MISSING).open() as stream:
        listed = {r["slide"]: r["reason"] for r in csv.DictReader(stream)}
    assert listed == {
        "b": "b: access is refused (403): ask",
        "c": "gone",
        "d": "a DICOM set",
    }
    assert "missing: 3" in summary(found)[0]
    assert any("access is refused" in line for line in summary(found))
    shelf.errors = {}
    run(shelf, tmp_path)
    assert not (tmp_path / MISSING).exists()


def fields(row):
    return {name: getattr(row, name) for name in row.__slots__}


@pytest.mark.parametrize("error", [Unanswered("no answer"), Unreachable("no answer")])
def test_a_source_that_does_not_answer_is_left_alone_after_some_slides(tmp_path, error):
    shelf = Shelf({f"{i:03}": b"x" for i in range(40)})
    shelf.errors = dict.fromkeys(shelf.files, error)
    found = run(shelf, tmp_path, together=1)
    assert len(found.missing) == 40
    assert len(shelf.asked) == 5
    shelf.errors = dict.fromkeys(shelf.files, Refused("no", 404))
    run(shelf, tmp_path, together=1)
    assert len(shelf.asked) == 45  # a refusal is an answer
    shelf.errors = dict.fromkeys(shelf.files, Refused("no", 401))
    found = run(shelf, tmp_path, together=1)
    assert len(shelf.asked) == 50  # a token that has expired is refused for every slide
    assert "Check the token" in found.missing[-1][2]


def test_slides_that_are_gone_or_damaged_do_not_keep_others_away(tmp_path):
    shelf = Shelf({f"{i:03}": b"x" for i in range(40)})
    answers = [SourceError("gone"), Refused("no", 403), SlideError("no object has this name")]
    for i, name in enumerate(list(shelf.files)[:30]):
        shelf.errors[name] = answers[i % 3] if i % 5 else Unanswered("no answer")
    found = run(shelf, tmp_path, together=1)
    assert (found.came, len(found.missing), len(shelf.asked)) == (10, 30, 40)


def test_slides_of_a_folder_that_were_deleted_do_not_keep_others_away(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.svs").write_bytes(b"%d" % i)
    rows = [
        Row(slide=i.source_id, src=i.src, source_id=i.source_id, file=i.file, size=i.size)
        for i in Folder(folder).items()
    ]
    for i in range(6):
        (folder / f"{i}.svs").unlink()
    found = fetch(rows, tmp_path / "out", together=1, copy_local=True)
    assert found.came == 2
    assert all("cannot be read" in reason for _, _, reason in found.missing)


def test_several_come_at_once_within_the_limit(tmp_path):
    shelf = Shelf({f"{i:03}": b"x" for i in range(12)})
    both = threading.Barrier(3, timeout=20)
    shelf.on_fetch = both.wait
    run(shelf, tmp_path, together=3)
    assert shelf.most == 3


def test_a_stop_keeps_what_came(shelf, tmp_path):
    stop = threading.Event()
    shelf.on_fetch = stop.set
    with pytest.raises(Stopped):
        run(shelf, tmp_path, together=1, stop=stop)
    assert len(shelf.asked) == 1
    assert run(shelf, tmp_path).there == 1


def test_a_disk_error_ends_the_run(shelf, tmp_path):
    shelf.errors = {"a": StoreError("the disk is full")}
    with pytest.raises(StoreError, match="full"):
        run(shelf, tmp_path, together=1)


def test_a_slide_that_came_just_before_a_kill_is_not_fetched_again(shelf, tmp_path):
    rows = shelf.rows()[:1]
    row = Row(**{**fields(rows[0]), "checksum": f"md5:{hashlib.md5(b'a' * 100).hexdigest()}"})
    run(shelf, tmp_path, [row])
    (tmp_path / ".fetched.jsonl").write_text('["shelf/a.svs", 1')
    found = run(shelf, tmp_path, [row])
    assert shelf.asked == ["a"]
    assert found.sha256["shelf:", "a"] == hashlib.sha256(b"a" * 100).hexdigest()


def test_local_slides_are_read_in_place_or_copied(tmp_path):
    folder = tmp_path / "archive"
    (folder / "m").mkdir(parents=True)
    (folder / "a.svs").write_bytes(b"a" * 100)
    (folder / "m.mrxs").write_bytes(b"m")
    (folder / "m" / "Index.dat").write_bytes(b"i" * 10)
    source = Folder(folder)
    rows = [
        Row(slide=i.source_id, src=i.src, source_id=i.source_id, file=i.file, size=i.size)
        for i in source.items()
    ]
    assert fetch(rows, tmp_path / "out").came == 0
    found = fetch(rows, tmp_path / "out", copy_local=True)
    assert (found.came, found.missing) == (2, [])
    copied = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [n for n in copied if not n.startswith(".")] == ["Index.dat", "a.svs", "m.mrxs"]
    assert fetch(rows, tmp_path / "out", copy_local=True).there == 2
