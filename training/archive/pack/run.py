"""Pack the slides of a manifest: all groups, or a share of them, here or on a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from pathencoder.cores import available
from pathencoder.errors import ConfigError
from pathencoder.files import make_folder
from pathencoder.locks import Busy
from training.archive.checked import refuse_waiting
from training.archive.http import Stopped
from training.archive.measuring import end_with_parent
from training.archive.pack.files import now_of, read_record, record_of
from training.archive.pack.group import GroupJob, Outcome, group_outcome
from training.archive.pack.layout import Layout, extended
from training.archive.pack.settings import Settings
from training.archive.pack.slide import stat_of
from training.archive.pack.tables import Tables, write_tables
from training.archive.row import Row
from training.archive.sources.open_source import place_of

log = logging.getLogger(__name__)

_EVERY = 10.0  # seconds between lines of progress
_TRIES = 2  # of a group whose process ends, until its slide counts as the cause


@dataclass(frozen=True)
class Where:
    """Who does the work.

    Attributes:
        processes: Here; 0: none but this one. None: the cores of this process.
        share: (i, n): the i-th of n shares of the groups, from 1.
        ray: Address of a Ray cluster (local, auto, HOST:PORT); None: none.
    """

    processes: int | None = None
    share: tuple[int, int] = (1, 1)
    ray: str | None = None


@dataclass
class Packed:
    """What a run did.

    Attributes:
        tables: What is written of all runs.
        groups: Groups that this run wrote.
        busy: Groups that another process is writing.
        left: Groups that are not done, of all shares.
        absent: Slides that do not lie here.
    """

    tables: Tables
    groups: int = 0
    busy: int = 0
    left: int = 0
    absent: list[str] = field(default_factory=list)


def pack(
    rows: Sequence[Row],
    out: Path,
    settings: Settings,
    *,
    slides: Path,
    splits: Sequence[str] = (),
    where: Where = Where(),
    again: bool = False,
) -> Packed:
    """Pack slides into shards, or go on with it.

    Args:
        rows: Of the manifest.
        out: The folder of the shards.
        settings: How they are packed.
        slides: Where `fetch` put slides that do not lie in folders of this machine.
        splits: Only slides of these splits are added; none: all.
        where: Who does the work.
        again: Try slides again that failed; else only those whose files changed since.

    Returns:
        What was done.

    Raises:
        ConfigError: The settings do not fit the shards that are there, no slide can be used, or an
            edited patient is not taken in yet.
        Mismatch: The shards are of another manifest.
        SourceGone: The folder of the slides went away.
        StoreError: The folder cannot be written, or is full.
        Stopped: Ctrl-C. What was packed is kept.
    """
    refuse_waiting(rows)
    make_folder(out)
    by_name = {row.slide: row for row in rows}
    absent: list[str] = []

    def is_wanted(row: Row) -> bool:
        if splits and row.split not in splits:
            return False
        here = place_of(row, slides).exists()
        if not here:
            absent.append(row.slide)
        return here

    def to_repeat(layout: Layout) -> list[str]:
        return _changed_since(layout, out, by_name, slides, again=again)

    layout = extended(out, rows, settings, is_wanted=is_wanted, again=to_repeat)
    if not layout.groups:
        raise ConfigError(_nothing(rows, absent, slides))
    number, count = where.share
    mine = [n for n in range(len(layout.groups)) if n % count == number - 1]
    todo = [n for n in mine if not record_of(out, n).exists()]
    jobs = [_job(n, layout, out, by_name, slides) for n in todo]
    log.info("%d of %d groups of slides to pack", len(jobs), len(layout.groups))
    found = Packed(Tables(), absent=absent)
    for _, outcome in _with_progress(_all(jobs, where), len(jobs)):
        if isinstance(outcome, Busy):
            found.busy += 1
            log.info("%s", outcome)
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            found.groups += 1
    found.left = sum(not record_of(out, n).exists() for n in range(len(layout.groups)))
    found.tables = write_tables(out, layout, rows)
    return found


def _nothing(rows: Sequence[Row], absent: Sequence[str], slides: Path) -> str:
    usable = sum(row.use and not row.problem for row in rows)
    if not usable:
        return "no slide of the manifest can be used: see the columns use and problem"
    folders = {row.src for row in rows if row.slide in set(absent)}
    if all(name.startswith("folder:") for name in folders):
        named = ", ".join(sorted(name.removeprefix("folder:") for name in folders)[:3])
        return (
            f"none of the {usable} slides lies here: they were in {named}. Mount the drive, or"
            " list the folder where they are now: python -m training.archive manifest FOLDER"
        )
    return (
        f"none of the {usable} slides lies here ({', '.join(absent[:3])} ...): fetch them, and name"
        f" that folder with --slides (it is {slides} now)"
    )


def _job(
    number: int, layout: Layout, out: Path, by_name: Mapping[str, Row], slides: Path
) -> GroupJob:
    members = tuple(layout.groups[number])
    rows = {member.slide: by_name[member.slide] for member in members}
    places = {name: place_of(row, slides) for name, row in rows.items()}
    return GroupJob(out, number, members, rows, places, layout.settings)


def _changed_since(
    layout: Layout, out: Path, by_name: Mapping[str, Row], slides: Path, *, again: bool
) -> list[str]:
    """Slides that failed, and whose files are others now, or all that failed."""
    last: dict[str, dict[str, Any]] = {}
    for number, group in enumerate(layout.groups):
        record = read_record(out, number)
        for i, member in enumerate(group):
            last[member.slide] = record["slides"][i] if record else {"problem": ""}
    failed = {name: entry for name, entry in last.items() if entry["problem"]}
    return [
        name
        for name, entry in failed.items()
        if again or (entry["stat"] and stat_of(place_of(by_name[name], slides)) != entry["stat"])
    ]


def _all(jobs: Sequence[GroupJob], where: Where) -> Iterator[tuple[int, Outcome]]:
    """Every group and its record, or what ended it."""
    if where.ray is not None:
        from training.archive.pack.on_ray import on_ray

        yield from on_ray(jobs, where.ray)
    elif where.processes == 0:
        for job in jobs:
            yield job.number, _one(job, 1, threading.Event())
    else:
        yield from _in_processes(jobs, where.processes or available())


def _with_progress(
    found: Iterator[tuple[int, Outcome]], count: int
) -> Iterator[tuple[int, Outcome]]:
    said = time.monotonic()
    for done, item in enumerate(found, 1):
        yield item
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            log.info("%d of %d groups", done, count)


def _in_processes(jobs: Sequence[GroupJob], processes: int) -> Iterator[tuple[int, Outcome]]:
    """Groups in several processes; one at which a process ends is tried alone, then without it."""
    left = list(jobs)[::-1]
    while left:
        count = min(processes, len(left))
        running: dict[Future[Outcome], GroupJob] = {}
        with _pool(count, max(1, processes // count)) as (pool, stop):
            try:
                while left or running:
                    while left and len(running) < count:
                        job = left.pop()
                        running[pool.submit(_in_worker, job)] = job
                    done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        found = future.result()
                        yield running.pop(future).number, found
            except BrokenProcessPool:
                for job in running.values():
                    yield from _alone(job, processes)
            except BaseException:
                stop.set()
                raise


def _alone(job: GroupJob, threads: int) -> Iterator[tuple[int, Outcome]]:
    """A group in a process of its own, without each slide at which that process ends."""
    tries = 0
    while True:
        try:
            with _pool(1, threads) as (pool, _):
                yield job.number, pool.submit(_in_worker, job).result()
                return
        except BrokenProcessPool:
            tries += 1
            if tries == _TRIES:
                slide, tries = now_of(job.out, job.number).read_text(encoding="utf-8"), 0
                if slide in job.crashed:
                    raise
                job = replace(job, crashed=job.crashed | {slide})


@contextlib.contextmanager
def _pool(processes: int, threads: int) -> Iterator[tuple[ProcessPoolExecutor, Event]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start, initargs=(stop, threads)
    ) as pool:
        yield pool, stop


_worker: dict[str, Any] = {}


def _start(stop: Event, threads: int) -> None:
    """In a new process: it ends with its parent, and the parent hears Ctrl-C."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker.update(stop=stop, threads=threads)


def _in_worker(job: GroupJob) -> Outcome:
    return _one(job, _worker["threads"], _worker["stop"])


def _one(job: GroupJob, threads: int, stop: threading.Event | Event) -> Outcome:
    """A group's record, or an error that ends the run."""

    def pause() -> None:
        if stop.is_set():
            raise Stopped

    return group_outcome(job, threads, pause)
