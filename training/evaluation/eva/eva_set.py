"""What is known of a set of eva, and what a local copy of it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pathencoder.images import ImageSource

NONE_BESIDE = "no published row stands beside"


@dataclass(frozen=True)
class EvaImages:
    """The images of a set.

    Attributes:
        images: In any form that `Encoder.encode` takes; slides as paths.
        labels: The class of each; "" where labels are masks.
        parts: "train", "val" or "test" of each.
        files: The files that hold them, for the hash.
        notes: What a reader of its figures should know of this copy.
    """

    images: Sequence[ImageSource]
    labels: Sequence[str]
    parts: Sequence[str]
    files: Sequence[Path]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many images each part has."""
        return dict(Counter(self.parts))


@dataclass(frozen=True)
class EvaSet:
    """A set of eva.

    Attributes:
        name: On the command line, and the column of the published rows.
        title: What it shows.
        read: Reads a local copy.
        classes: Its classes.
        expected: How many images each part has in eva; with other numbers no published row stands
            beside.
        patience: Looks at val without a better figure after which a fit ends.
        reported: The parts that are reported, each with the column of the published rows.
        homepage: Where it is had.
        licence: As its source states it.
        notes: What a reader of its figures should know.
        kind: "tiles" (a linear layer), "masks" (a decoder) or "slides" (attention over tiles).
        runs: Fits whose mean is the figure.
        every: Epochs between looks at val.
        least: By how much a figure must be better to count for `patience`.
    """

    name: str
    title: str
    read: Callable[[Path], EvaImages]
    classes: tuple[str, ...]
    expected: Mapping[str, int]
    patience: int
    reported: Mapping[str, str]
    homepage: str
    licence: str
    notes: tuple[str, ...] = ()
    kind: Literal["tiles", "masks", "slides"] = "tiles"
    runs: int = 5
    every: int = 1
    least: float = 0.0
