"""One feature file in the making.

A journal of finished rows beside it, the stream that fills it, and the final write.
"""

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
from pathencoder.features.journal import Journal, describe_differences
from pathencoder.features.provenance import Recipe, Settings
from pathencoder.features.store import Content, Failure
from pathencoder.files import Mismatch, make_folder
from pathencoder.images import Item

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

T = TypeVar("T")
Progress = Callable[[int, int], None]  # parts done (those of earlier runs too), parts in all


def silent(done: int, total: int) -> None:
    """The progress that shows nothing."""


@dataclass
class Outcome:
    """What became of one input.

    Attributes:
        source: The input, as the user typed it.
        status: done, empty (no tissue), before (was done already), busy (another process is at
            it), failed, stopped (begun, not finished), unreached.
        file: The file with its results.
        rows: How many rows the file has for this input; new: how many of them this run computed.
        seconds: Time that it took.
        failures: The parts that failed; one with an empty part is the whole input.
        notes: What a user should know of it, short.
        parts: The parts that were looked at, where they are not all of the input.
        picture: Of a slide's tissue and tiles, where one was asked for.
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


class Work:
    """A journal beside the file in the making; closed, not deleted, when something stops the work.

    Args:
        encoder: What computes the rows.
        file: The file in the making.
        settings: How to encode.
        header: What the rows depend on; work goes on only under the same.
        progress: Called with (done, total).
        facts: Kept with the journal, for those who find it.
        tag_bytes: Length of what is kept beside each row.

    Raises:
        StoreError: The folder cannot be written.
        Mismatch: The journal is of other settings.
        Busy: Another process is at it.
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

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def take_over(
        self,
        rows: Sequence[tuple[int, int, bytes]],
        take: Callable[[Sequence[int]], NDArray[np.float32]],
    ) -> None:
        """Rows of a finished file become rows of this work: (place, id, tag) of each.

        take(places) reads them.
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
        """Read what is to do, encode it, keep the rows; returns what could not be read.

        `mpp`: of what `read` gives.
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
                failed.append(
                    (
                        todo[place],
                        (
                            result.error.__cause__
                            if isinstance(result.error.__cause__, SlideError)
                            else result.error
                        ),
                    )
                )
            self._progress(done + place + 1, total)
        self.journal.flush()
        return failed

    def finish(self, content: Content, ids: Sequence[int]) -> int:
        """Write the file from the journal's rows in this order.

        The number of rows that this run computed.
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
        """Shape of a row where there is none to look at."""
        size = self._encoder.spec.input_size
        blank = np.full((size, size, 3), 255, np.uint8)
        return self._encoder.encode(blank, output=self._settings.output, progress=False).shape[1:]


def check_recipe(file: Path, recipe: Recipe) -> None:
    """Raises Mismatch, a StoreError, unless a feature file was made with this recipe."""
    found = store.read_settings(file)
    if found is None:
        raise Mismatch(
            f"{file} was not written by pathencoder and is not touched. Choose another --out, or"
            " --overwrite"
        )
    if ("tissue" in found) != (recipe.tissue is not None):
        there, here = ("a slide", "tiles") if recipe.tissue is None else ("tiles", "a slide")
        raise Mismatch(
            f"{file} holds {there}, and this input is {here}: nothing is overwritten. Choose"
            " another --out, or --overwrite"
        )
    if found != recipe.settings():
        differences = describe_differences(found, recipe.settings())
        raise Mismatch(
            f"{file} was made with other settings ({differences}). Choose another --out, or"
            " --overwrite"
        )


def partial_path(file: Path) -> Path:
    """Where the rows of an unfinished file are kept."""
    return file.with_name(f".{file.name}.partial")


def _readable(read: Callable[[T], Pixels], part: T) -> Pixels:
    """A part of an input; a damaged region of a slide is a bad image to the encoder."""
    try:
        return read(part)
    except SlideError as error:
        raise ImageError(str(error)) from error
