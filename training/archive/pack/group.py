"""The shards of one group of slides, slide by slide; what a killed process left goes on.

While it is written, a group is a tar under a temporary name and a journal with a line a slide: how
long the tar is after it, and its tiles. A run that resumes cuts the tar to the last whole line; so
the bytes are those of an undisturbed run. At the end the shards are read again and compared, and
the group's record is written: a group with a record is done.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathencoder.errors import MissingMpp, PathEncoderError, SlideError, StoreError
from pathencoder.features.identity import identify_slide
from pathencoder.files import storing, whole_file
from pathencoder.locks import Lock
from training.archive.http import Stopped
from training.archive.pack.files import Tar, journal_of, now_of, read_record, record_of, tiles_of
from training.archive.pack.layout import Member
from training.archive.pack.settings import Settings, in_nm
from training.archive.pack.slide import At, Opened, Scale, open_tiles, stat_of, write_tiles
from training.archive.pack.tile_table import write_tile_table
from training.archive.row import Row

_MOST_NOTES = 20
_CRASHED = "the reader crashed on it: copy it again from where it came, and pack with --again"


class SourceGone(PathEncoderError):
    """The folder of the slides went away while they were read."""


@dataclass(frozen=True)
class GroupJob:
    """A group that is to be written. Can be pickled.

    Attributes:
        out: The folder of the shards.
        number: Of the group.
        members: Its slides.
        rows: Their rows in the manifest.
        places: Where they lie.
        settings: How they are packed.
        crashed: Slides at which a reader ended its process: they are left out.
    """

    out: Path
    number: int
    members: tuple[Member, ...]
    rows: Mapping[str, Row]
    places: Mapping[str, Path]
    settings: Settings
    crashed: frozenset[str] = frozenset()


Outcome = dict[str, Any] | Exception  # a record, or what ended the group


def group_outcome(job: GroupJob, threads: int, pause: Callable[[], None]) -> Outcome:
    """Write a group with so many threads; its record, or why it ended."""
    try:
        if threads < 2:
            return write_group(job, None, pause)
        with ThreadPoolExecutor(threads) as pool:
            return write_group(job, pool, pause)
    except (PathEncoderError, Stopped) as error:
        return error


def write_group(
    job: GroupJob, pool: Executor | None = None, pause: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Write the shards of a group, or go on with them.

    Args:
        job: The group.
        pool: Threads that read tiles.
        pause: Called often; may raise, to stop.

    Returns:
        Its record.

    Raises:
        Busy: Another process is writing it.
        SourceGone: The folder of its slides is not there any more.
        StoreError: The disk is full, or a shard that was written does not read the same.
    """
    lock = Lock(
        job.out / f".{job.number:06d}.lock",
        f"{job.out}: another process is writing group {job.number}",
        between_machines=True,
    )
    try:
        record = read_record(job.out, job.number)
        if record is not None:
            return record
        with _Writer(job) as writer:
            for member in job.members[len(writer.slides) :]:
                pause()
                lock.check()
                with storing(job.out):
                    now_of(job.out, job.number).write_text(member.slide, encoding="utf-8")
                writer.add(member, _packed(job, member, writer, pool, pause))
            lock.confirm()
            return writer.finish()
    finally:
        lock.release()


@dataclass
class _Writer:
    """The unfinished shards of a group and its journal. A context manager."""

    job: GroupJob
    slides: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> _Writer:
        job = self.job
        self.path = journal_of(job.out, job.number)
        with storing(self.path):
            self._journal = self.path.open("ab+")
        kept = self._read()
        last = self.slides[-1] if self.slides else {"part": 0, "end": 0, "images": 0}
        self.tar = Tar(job.out, job.number, job.settings, last["part"], last["end"], last["images"])
        with storing(self.path):
            self._journal.truncate(kept)
        return self

    def __exit__(self, *_: object) -> None:
        self.tar.close()
        with contextlib.suppress(OSError):
            self._journal.close()

    def add(self, member: Member, entry: dict[str, Any]) -> None:
        """Make a slide's tiles durable, then its line in the journal."""
        self.tar.sync()
        entry |= {
            "slide": member.slide,
            "source": member.source,
            "part": self.tar.part,
            "end": self.tar.length,
            "images": self.tar.images,
        }
        with storing(self.path):
            self._journal.write(json.dumps(entry).encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.slides.append(entry)

    def finish(self) -> dict[str, Any]:
        """Complete the shards, compare them with the journal, and write the record."""
        job, shards = self.job, []
        self.tar.close()
        for part in sorted({s["part"] for s in self.slides if s["scales"]}):
            of = [s for s in self.slides if s["part"] == part]
            end, images = max(s["end"] for s in of), max(s["images"] for s in of)
            shards.append(self.tar.finish(part, end, images))
        self.tar.remove_empty()
        write_tile_table(tiles_of(job.out, job.number), self.slides, job.number, job.settings)
        for entry in self.slides:
            for scale in entry["scales"]:
                del scale["columns"]
        record = {"group": job.number, "shards": shards, "slides": self.slides}
        with whole_file(record_of(job.out, job.number)) as temporary:
            temporary.write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
        with contextlib.suppress(OSError):
            self._journal.close()
            self.path.unlink(missing_ok=True)
            now_of(job.out, job.number).unlink(missing_ok=True)
        return record

    def _read(self) -> int:
        """Read the slides that are done; the bytes of their lines."""
        kept = 0
        with storing(self.path):
            self._journal.seek(0)
            lines = self._journal.readlines()
        for line, member in zip(lines, self.job.members, strict=False):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else {}
            except ValueError:
                entry = {}
            if entry.get("slide") != member.slide:
                break
            self.slides.append(entry)
            kept += len(line)
        return kept


def _packed(
    job: GroupJob,
    member: Member,
    writer: _Writer,
    pool: Executor | None,
    pause: Callable[[], None],
) -> dict[str, Any]:
    """Pack one slide: its entry in the journal. A bad slide leaves no tile and says why."""
    row, path = job.rows[member.slide], job.places[member.slide]
    crashed = member.slide in job.crashed
    entry: dict[str, Any] = {
        "stat": [] if crashed else stat_of(path),
        "file": str(path),
        "content": "",
        "sha256": row.sha256,
        "picture": "",
        "problem": "",
        "notes": [],
        "scales": [],
    }
    if crashed:
        return entry | {"problem": _CRASHED}
    tar = writer.tar
    tar.begin_slide()
    try:
        opened = open_tiles(path, row, job.settings)
        try:
            entry["content"] = identify_slide(path).content
            entry["scales"] = [
                _written(opened, scale, job, tar, row, pool, pause) for scale in opened.scales
            ]
            entry["picture"] = opened.picture
            entry["notes"] = opened.notes[:_MOST_NOTES]
            if not any(scale["tiles"] for scale in entry["scales"]):
                entry |= {"problem": "no tissue was found", "scales": []}
        finally:
            opened.close()
    except (SlideError, MissingMpp, OSError, ValueError, MemoryError) as error:
        if isinstance(error, StoreError):
            raise
        tar.cut()
        _refuse_gone(path)
        entry |= {"problem": _short(error, path), "scales": []}
    return entry


def _written(
    opened: Opened,
    scale: Scale,
    job: GroupJob,
    tar: Tar,
    row: Row,
    pool: Executor | None,
    pause: Callable[[], None],
) -> dict[str, Any]:
    first = tar.images
    folder = f"{row.slide}/{in_nm(scale.grid.target_mpp)}nm"

    def write(at: At, data: bytes) -> None:
        tar.add(f"{folder}_{at[0]}_{at[1]}{job.settings.suffix}", at, data)

    made = write_tiles(opened, scale, job.settings, pool, write, pause)
    return {
        "mpp": made.mpp,
        "side": made.side,
        "own_mpp": scale.grid.mpp,
        "first": first,
        "tiles": tar.images - first,
        "planned": scale.planned,
        "failed": made.failed,
        "first_error": made.first_error,
        "alike": made.alike,
        "columns": made.columns,
    }


def _refuse_gone(path: Path) -> None:
    """Raise SourceGone where a slide is missing together with all that lay beside it."""
    folder = path.parent
    with contextlib.suppress(OSError):
        if path.exists() or any(folder.iterdir()):
            return
    raise SourceGone(
        f"{path} is gone, and so is its folder: is the drive still mounted? What was packed is"
        " kept; the same command resumes"
    )


def _short(error: Exception, path: Path) -> str:
    """An error in one line, without the path: the record names the slide."""
    text = str(error).replace(f"{path}: ", "").replace(str(path), "it").partition("\n")[0]
    return (text or type(error).__name__)[:300]
