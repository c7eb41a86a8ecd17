"""The work on one feature file: a journal of finished rows, what fills it, and the final write."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError, SlideError
from pathencoder.features import store
from pathencoder.features.journal import Journal
from pathencoder.features.provenance import Settings
from pathencoder.features.store import Content, Failure
from pathencoder.files import make_folder
from pathencoder.images import Item

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
        self.file = file
        self._encoder, self._settings, self._progress = encoder, settings, progress
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
    ) -> list[tuple[T, Exception]]:
        """Read the parts that are left, encode them, and keep their rows in the journal.

        Args:
            todo: The parts.
            read: Reads one, uint8 [H, W, 3].
            id_of: Its 64-bit id in the journal.
            tag_of: The bytes to keep beside its row, after it was read.
            total: Parts in all, with those that earlier runs have done.
            mpp: Micrometres per pixel of what `read` returns.

        Returns:
            The parts that could not be read, each with its error.
        """
        done = total - len(todo)
        self._progress(done, total)
        if not todo:
            return []
        from pathencoder import stream

        failed: list[tuple[T, Exception]] = []
        images = (
            Item(place, str(part), functools.partial(_readable, read, part))
            for place, part in enumerate(todo)
        )
        asked = self._settings
        settings = stream.Settings(
            output=asked.output,
            batch_size=asked.batch_size,
            precision=asked.precision,
            workers=asked.workers,
        )
        for place, result in enumerate(self._encoder.results(images, mpp=mpp, settings=settings)):
            if result.error is None:
                self.journal.append(id_of(todo[place]), result.row, tag_of(todo[place]))
                self._new += 1
            else:
                cause = result.error.__cause__
                error = cause if isinstance(cause, SlideError) else result.error
                failed.append((todo[place], error))
            self._progress(done + place + 1, total)
        self.journal.flush()
        return failed

    def finish(self, content: Content, ids: Sequence[int]) -> int:
        """Write the file from the journal's rows and delete the journal.

        Args:
            content: What the file holds beside its rows.
            ids: The rows, in the order of the file.

        Returns:
            How many rows this run computed.
        """
        shape = self.journal.row_shape or self._row_shape()
        store.write_features(
            self.file,
            content,
            len(ids),
            shape,
            lambda start, stop: self.journal.rows(ids[start:stop]),
        )
        self.journal.delete()
        return self._new

    def _row_shape(self) -> tuple[int, ...]:
        """Shape of a row, for a file without rows."""
        size = self._encoder.spec.input_size
        blank = np.full((size, size, 3), 255, np.uint8)
        return self._encoder.encode(blank, output=self._settings.output, progress=False).shape[1:]


def partial_path(file: Path) -> Path:
    """Where the rows of an unfinished file are kept."""
    return file.with_name(f".{file.name}.partial")


def _readable(read: Callable[[T], Pixels], part: T) -> Pixels:
    """Read one part; a damaged region of a slide becomes the ImageError that encoders expect."""
    try:
        return read(part)
    except SlideError as error:
        raise ImageError(str(error)) from error
