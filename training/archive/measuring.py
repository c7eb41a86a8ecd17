"""Read the headers of many slides and hash their files, in several processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from training.archive.cache import Key
from training.archive.facts import Facts, measure

_CHUNK = 32  # slides handed to a process at a time
_FEW = 8  # slides that are read without other processes
_LARGE = 256 << 20  # bytes after which a chunk ends, where files are hashed

Found = list[tuple[Key, Facts]]


@dataclass(frozen=True, slots=True)
class Task:
    """One slide to read.

    Attributes:
        key: Of the slide.
        path: A file or folder.
        size: Bytes of its files.
        modified: Their latest change.
        hashed: Compute the sha256.
        look: Look at its colours.
    """

    key: Key
    path: Path
    size: int
    modified: int
    hashed: bool
    look: bool


def measure_all(tasks: Sequence[Task], processes: int) -> Iterator[Found]:
    """Read slides, the largest chunks of work in parallel.

    A slide at which a process ends (a reader that crashes) gets that as its problem; the others are
    not affected.

    Args:
        tasks: The slides.
        processes: How many processes.

    Yields:
        The facts of some slides, as they are done.
    """
    if processes < 2 or len(tasks) <= _FEW:
        for task in tasks:
            yield _work([task])
        return
    suspects: list[Task] = []
    left = _chunks(tasks)
    while left:
        left, crashed = yield from _until_a_crash(left, processes)
        suspects += crashed
    yield from _one_by_one(suspects)


def _chunks(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks in chunks, each of some number of slides and bytes; taken from the end."""
    chunks: list[list[Task]] = []
    held = _LARGE
    for task in tasks:
        if held >= _LARGE or len(chunks[-1]) >= _CHUNK:
            chunks.append([])
            held = 0
        chunks[-1].append(task)
        held += task.size if task.hashed else 0
    return chunks[::-1]


def _until_a_crash(
    chunks: list[list[Task]], processes: int
) -> Generator[Found, None, tuple[list[list[Task]], list[Task]]]:
    """Work on chunks until all are done or a process ends: what is left, and the suspects."""
    left = list(chunks)
    with _pool(processes) as pool:
        running: dict[Future[Found], list[Task]] = {}
        try:
            while left or running:
                while left and len(running) < 2 * processes:
                    chunk = left.pop()
                    running[pool.submit(_work, chunk)] = chunk
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    found = future.result()
                    del running[future]
                    yield found
        except BrokenProcessPool:
            suspects = [task for chunk in running.values() for task in chunk]
            return left, suspects
    return [], []


def _one_by_one(tasks: Sequence[Task]) -> Iterator[Found]:
    """Slides one after the other in a process, so that the one that ends it is known."""
    left = list(tasks)[::-1]
    while left:
        with _pool(1) as pool:
            try:
                while left:
                    yield pool.submit(_work, [left[-1]]).result()
                    left.pop()
            except BrokenProcessPool:
                task = left.pop()
                problem = "the reader crashed on it: copy it again from where it came"
                yield [(task.key, Facts(task.size, task.modified, problem=problem))]


def _pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent)


def end_with_parent() -> None:
    """End this process when its parent ends: one that is killed leaves its pool waiting."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(tasks: Iterable[Task]) -> Found:
    return [
        (t.key, measure(t.path, t.size, t.modified, hashed=t.hashed, look=t.look)) for t in tasks
    ]
