"""The work on one feature file: a journal of finished rows, what fills it, and the final write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError, SlideError
from pathencoder.features import writer
from pathencoder.features.journal import Journal
from pathencoder.features.provenance import Settings
from pathencoder.features.store import Content, Failure
from pathencoder.files import make_folder
from pathencoder.images import Item, Key
from pathencoder.leases import Seen
from pathencoder.pace import Pace

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

T = TypeVar("T")
Progress = Callable[[int, int], None]  # parts done (those of earlier runs too), parts in all


def silent(done: int, total: int) -> None:
    """The progress that shows nothing."""


@dataclass
class Outcome:
    """The result of one input.

    Attributes:
        source: The input, as the user typed it.
        status: done, empty (no tissue), before (done by an earlier run), busy (another process
            is writing its file), failed, stopped (begun, not finished), unreached.
        file: The file with its results.
        rows: How many rows the file has for this input.
        new: How many of them this run computed.
        seconds: Time that it took.
        failures: The parts that failed; an empty part means the whole input.
        notes: Short notes for the user.
        parts: The parts that were processed, where they are not all of the input.
        picture: The picture of a slide's tissue and tiles, where one was asked for.
        encoder: Name of the encoder.
        reader: The library that read a slide, and its version.
        mpp: Micrometres per level-0 pixel of a slide.
        pace: Where the time went.
        lease: Of the other process, where the status is busy and it is not known to run.
    """

    source: Path
    status: str
    file: Path | None = None
    rows: int = 0
    new: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: frozenset[str] | None = None
    picture: Path | None = None
    encoder: str = ""
    reader: str = ""
    mpp: float | None = None
    pace: Pace = field(default_factory=Pace)
    lease: Seen | None = None


class Job:
    """The work on one feature file; its journal stays on disk when the job is interrupted.

    Args:
        encoder: Computes the rows.
        file: The feature file to write.
        settings: How to encode.
        header: All that the rows depend on; a journal is resumed only under the same header.
        progress: Called with (done, total).
        facts: Further facts, kept in the journal.
        tag_bytes: Bytes that are kept beside each row.

    Raises:
        StoreError: The folder cannot be written.
        Mismatch: The journal is of other settings.
        Busy: Another process is writing the file.
    """

    def __init__(
        self,
        encoder: Encoder,
        file: Path,
        settings: Settings,
        header: Mapping[str, Any],
        progress: Progress,
        *,
        facts: Mapping[str, Any] | None = None,
        tag_bytes: int = 0,
    ) -> None:
        self.file, self.encoder, self.settings, self.progress = file, encoder, settings, progress
        make_folder(file.parent)
        self.journal = Journal(
            partial_path(file), header, facts=facts, tag_bytes=tag_bytes, anew=settings.overwrite
        )
        self._new = 0

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def take_over(
        self,
        rows: Sequence[tuple[int, int, bytes]],
        take: Callable[[Sequence[int]], NDArray[np.float32]],
    ) -> None:
        """Copy rows of a finished file into the journal.

        Args:
            rows: (place in the finished file, id, tag) of each.
            take: Reads the rows at these places, float32 [len(places), ...].
        """
        for start in range(0, len(rows), 1024):
            part = rows[start : start + 1024]
            for (_, key, tag), row in zip(part, take([place for place, *_ in part]), strict=True):
                self.journal.append(key, row, tag)

    def fill(
        self,
        todo: Sequence[T],
        read: Callable[[T], Pixels],
        id_of: Callable[[T], int],
        tag_of: Callable[[T], bytes] = lambda _: b"",
        *,
        total: int,
        mpp: float | None,
        pace: Pace | None = None,
    ) -> list[tuple[T, Exception]]:
        """Read the parts that are left, encode them, and keep their rows in the journal.

        Args and return value are those of `fill_together`.
        """
        return fill_together([self], todo, read, id_of, tag_of, total=total, mpp=mpp, pace=pace)

    def append(self, key: int, row: NDArray[np.float32], tag: bytes) -> None:
        """Keep a row that this run has computed."""
        self.journal.append(key, row, tag)
        self._new += 1

    def finish(self, content: Content, ids: Sequence[int]) -> int:
        """Write the file from the journal's rows and delete the journal.

        Args:
            content: What the file holds beside its rows.
            ids: The rows, in the order of the file.

        Returns:
            How many rows this run computed.
        """
        shape = self.journal.row_shape or self._row_shape()
        self.journal.confirm()
        writer.write_features(
            self.file,
            content,
            len(ids),
            shape,
            lambda start, stop: self.journal.rows(ids[start:stop]),
            self.journal.confirm,
        )
        self.journal.delete()
        return self._new

    def _row_shape(self) -> tuple[int, ...]:
        """Shape of a row, for a file without rows."""
        size = self.encoder.spec.input_size
        blank = np.full((size, size, 3), 255, np.uint8)
        rows = self.encoder.encode(
            blank, output=self.settings.output, runtime="torch", progress=False
        )
        return rows.shape[1:]


def fill_together(
    jobs: Sequence[Job],
    todo: Sequence[T],
    read: Callable[[T], Pixels],
    id_of: Callable[[T], int],
    tag_of: Callable[[T], bytes] = lambda _: b"",
    *,
    total: int,
    mpp: float | None,
    pace: Pace | None = None,
) -> list[tuple[T, Exception]]:
    """Read parts once, encode them for several files, and keep their rows in the journals.

    A file gets the rows that its journal does not have. Its encoder, of the first file's input
    size, gets what `read` returns, resized by the first file's encoder.

    Args:
        jobs: The files. Settings, but for the runtime, and progress are the first one's.
        todo: The parts that a journal does not have.
        read: Reads one, uint8 [H, W, 3].
        id_of: Its 64-bit id in the journals.
        tag_of: The bytes to keep beside its row, after it was read.
        total: Parts in all, with those that earlier runs have done.
        mpp: Micrometres per pixel of what `read` returns.
        pace: Where the times are counted.

    Returns:
        The parts that could not be read, each with its error.
    """
    done, progress = total - len(todo), jobs[0].progress
    progress(done, total)
    if not todo:
        return []
    failed: list[tuple[T, Exception]] = []
    images = (
        Item(place, str(part), functools.partial(_readable, read, part))
        for place, part in enumerate(todo)
    )

    def wanted(place: Key) -> list[bool]:
        key = id_of(todo[int(place)])
        return [key not in job.journal for job in jobs]

    for place, (rows, error) in enumerate(_rows_of(jobs, images, wanted, mpp, pace)):
        part = todo[place]
        if error is None:
            for job, row in zip(jobs, rows, strict=True):
                if row is not None:
                    job.append(id_of(part), row, tag_of(part))
        else:
            cause = error.__cause__
            failed.append((part, cause if isinstance(cause, SlideError) else error))
        progress(done + place + 1, total)
    for job in jobs:
        job.journal.flush()
    return failed


def _rows_of(
    jobs: Sequence[Job],
    images: Iterator[Item],
    wanted: Callable[[Key], Sequence[bool]],
    mpp: float | None,
    pace: Pace | None,
) -> Iterator[tuple[Sequence[NDArray[np.float32] | None], ImageError | None]]:
    """For each image a row of each job's encoder, or the image's error."""
    from pathencoder import runtime, stream

    encoder, settings = jobs[0].encoder, replace(jobs[0].settings.of_network(), pace=pace)
    if len(jobs) == 1:
        for result in encoder.results(images, mpp=mpp, settings=settings):
            yield [result.row], result.error
        return
    found = stream.joint_results(
        stream.with_scales(images, mpp, None),
        encoder.transform,
        [job.encoder.runner(replace(settings, runtime=job.settings.runtime)) for job in jobs],
        group=runtime.pick_batch(settings.batch_size, encoder.device),
        workers=runtime.pick_workers(settings.workers),
        views=settings.views,
        wanted=wanted,
        pace=pace,
    )
    for joint in found:
        yield joint.rows, joint.error


def partial_path(file: Path) -> Path:
    """Where the rows of an unfinished file are kept."""
    return file.with_name(f".{file.name}.partial")


def _readable(read: Callable[[T], Pixels], part: T) -> Pixels:
    """Read one part; a damaged region of a slide becomes the ImageError that encoders expect."""
    try:
        return read(part)
    except SlideError as error:
        raise ImageError(str(error)) from error
