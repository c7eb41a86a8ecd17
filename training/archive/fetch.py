"""Bring the slides of a manifest here: several at a time, resumable, each compared with its row.

What came is noted in the folder, line by line: a later run does not read it again. What did not
come is listed with the reason in missing.csv.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path

from pathencoder.errors import PathEncoderError, StoreError
from pathencoder.features.identity import slide_stat
from pathencoder.files import make_folder, storing, whole_file
from pathencoder.locks import Lock
from pathencoder.remote.objects import Unreachable
from pathencoder.text import counted
from training.archive.facts import sha256_of
from training.archive.http import Refused, SourceError, Stopped, Unanswered
from training.archive.row import Row
from training.archive.sources.base import Source
from training.archive.sources.open_source import open_source

log = logging.getLogger(__name__)

MISSING = "missing.csv"
_NOTES = ".fetched.jsonl"
_SILENT = 5  # slides of a source without an answer in a row, before its others are left out
_NO_TOKEN = 401  # HTTP's status for a token that is missing, wrong or expired
_EVERY = 10.0  # seconds between lines of progress


@dataclass
class Fetched:
    """What a run of `fetch` did.

    Attributes:
        came: Slides that came in this run.
        there: Slides that were there before, whole.
        local: Slides in folders of this machine, which are read where they lie.
        missing: Slide, source and reason of each that did not come.
        size: Bytes that came.
        sha256: Of every slide that is here, by its key.
    """

    came: int = 0
    there: int = 0
    local: int = 0
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    size: int = 0
    sha256: dict[tuple[str, str], str] = field(default_factory=dict)


class _Notes:
    """What is known to lie in the folder whole, by its place: size, time and sha256."""

    def __init__(self, out: Path) -> None:
        self._file = out / _NOTES
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, str]] = {}
        self._stream: TextIOWrapper | None = None

    def __enter__(self) -> _Notes:
        with storing(self._file):
            if self._file.exists():
                for line in self._file.read_text(encoding="utf-8", errors="replace").split("\n"):
                    with contextlib.suppress(ValueError, TypeError):  # a line that was cut off
                        place, size, modified, sha256 = json.loads(line)
                        self._known[place] = (size, modified, sha256)
            self._stream = self._file.open("a", encoding="utf-8")
            self._stream.write("\n")  # ends a line that was cut off
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def sha256(self, place: str, path: Path) -> str:
        """The sha256 of a slide that came before and has not changed since; "" otherwise."""
        size, modified, sha256 = self._known.get(place, (-1, 0, ""))
        if size < 0 or not path.exists():
            return ""
        stat = slide_stat(path)
        return sha256 if (stat.size, stat.modified) == (size, modified) else ""

    def add(self, place: str, path: Path, sha256: str) -> None:
        """Note a slide that came whole."""
        stat = slide_stat(path)
        line = json.dumps([place, stat.size, stat.modified, sha256])
        with self._lock, storing(self._file):
            assert self._stream is not None
            self._stream.write(line + "\n")
            self._stream.flush()
            self._known[place] = (stat.size, stat.modified, sha256)


def fetch(
    rows: Sequence[Row],
    out: Path,
    *,
    together: int = 4,
    copy_local: bool = False,
    stop: threading.Event | None = None,
    sources: dict[str, Source] | None = None,
) -> Fetched:
    """Bring slides here.

    Args:
        rows: The slides. Those with use=0 are left out.
        out: The folder.
        together: How many at a time.
        copy_local: Copy slides of local folders, too; else they are read where they lie.
        stop: Set by another thread to end.
        sources: Sources that are open already, by name.

    Returns:
        What came, and what is missing.

    Raises:
        StoreError: The folder cannot be written, is full, or another process fetches into it.
        Stopped: `stop` was set. What came is kept.
    """
    stop = stop or threading.Event()
    make_folder(out)
    lock = Lock(out / ".fetch.lock", f"{out}: another process is fetching into it")
    result = Fetched()
    try:
        with _Notes(out) as notes:
            job = _Job(out, notes, stop, dict(sources or {}))
            wanted = [row for row in rows if row.use and job.is_wanted(row, copy_local, result)]
            size = sum(row.size or 0 for row in wanted)
            log.info("%d slides to fetch, %.1f GB", len(wanted), size / 1e9)
            for row, found in job.all(wanted, together):
                _record(row, found, result)
        _write_missing(out / MISSING, result.missing)
    finally:
        lock.release()
    if stop.is_set():
        raise Stopped
    return result


Outcome = str | PathEncoderError  # the sha256, or why there is none


@dataclass
class _Job:
    """One run: where slides go, what came before, and the sources that are open."""

    out: Path
    notes: _Notes
    stop: threading.Event
    sources: dict[str, Source]
    opening: threading.Lock = field(default_factory=threading.Lock)
    silent: Counter[str] = field(default_factory=Counter)  # slides in a row without an answer

    def is_wanted(self, row: Row, copy_local: bool, result: Fetched) -> bool:  # noqa: FBT001
        """Whether a slide must be fetched; what is here or cannot come is recorded."""
        if row.src.startswith("folder:") and not copy_local:
            result.local += 1
            return False
        if row.problem:
            result.missing.append((row.slide, row.src, row.problem))
            return False
        sha256 = self.notes.sha256(row.file, self.out / row.file)
        if sha256 and (not row.sha256 or sha256 == row.sha256):
            result.there += 1
            result.sha256[row.key] = sha256
            return False
        return True

    def all(self, rows: Sequence[Row], together: int) -> Iterator[tuple[Row, Outcome]]:
        """Every slide and what became of it, as they are done."""
        left, said = list(rows)[::-1], time.monotonic()
        running: dict[Future[Outcome], Row] = {}
        with ThreadPoolExecutor(max(1, together)) as pool:
            try:
                while left or running:
                    while left and len(running) < max(1, together) and not self.stop.is_set():
                        row = left.pop()
                        running[pool.submit(self.one, row)] = row
                    if not running:
                        return
                    done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
                    if time.monotonic() - said > _EVERY:
                        said = time.monotonic()
                        log.info("%d slides are left", len(left) + len(running))
            except BaseException:  # Ctrl-C, or a full disk: let the others end first
                self.stop.set()
                raise

    def one(self, row: Row) -> Outcome:
        """Bring one slide; its sha256, or why it did not come."""
        place = self.out / row.file
        if self.silent[row.src] >= _SILENT:
            return SourceError(
                f"left out: {row.src} did not answer, or refused the token, for {_SILENT} slides in"
                " a row. Check the token, or run the command again later"
            )
        try:
            source = self.source(row.src)
            sha256 = ""
            if place.exists() and not source.verify(row, place):  # came, and was not noted
                known = row.sha256 or row.checksum.startswith("md5:")
                sha256 = sha256_of(place) if known else ""
            sha256 = sha256 or source.fetch(row, place, self.stop)
            self.notes.add(row.file, place, sha256)
            self.silent[row.src] = 0
            return sha256
        except StoreError:
            raise
        except PathEncoderError as error:
            self.silent[row.src] = self.silent[row.src] + 1 if _is_silent(error) else 0
            return error
        except Stopped:
            return SourceError("the run was stopped: run the same command again")

    def source(self, name: str) -> Source:
        """The source of a name, opened once."""
        with self.opening:
            if name not in self.sources:
                self.sources[name] = open_source(name)
            return self.sources[name]


def _is_silent(error: PathEncoderError) -> bool:
    """Whether all other slides of a source will fail as this one did; else it is of this alone."""
    if isinstance(error, Refused):
        return error.status == _NO_TOKEN
    return isinstance(error, (Unanswered, Unreachable))


def _record(row: Row, found: Outcome, result: Fetched) -> None:
    if isinstance(found, PathEncoderError):
        log.warning("%s: %s", row.slide, found)
        result.missing.append((row.slide, row.src, str(found)))
        return
    result.came += 1
    result.size += row.size or 0
    result.sha256[row.key] = found


def _write_missing(file: Path, missing: Sequence[tuple[str, str, str]]) -> None:
    """missing.csv; without any, none of a run before stays."""
    if not missing:
        file.unlink(missing_ok=True)
        return
    with whole_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", "src", "reason"))
        writer.writerows(sorted(missing))


def summary(result: Fetched) -> list[str]:
    """What a run did, as lines for a person."""
    lines = [
        f"{counted(result.came, 'slide')} came ({result.size / 1e9:.2f} GB), here before:"
        f" {result.there:,}, missing: {len(result.missing):,}"
    ]
    if result.local:
        lines.append(
            f"{counted(result.local, 'slide lies', 'slides lie')} in folders of this machine, where"
            " pack and training read them (--copy copies them)"
        )
    lines += [f"  {slide} ({src}): {reason}" for slide, src, reason in result.missing[:20]]
    if len(result.missing) > 20:
        lines.append(f"  and {len(result.missing) - 20} more: see {MISSING}")
    return lines
