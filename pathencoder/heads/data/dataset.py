"""A labelled data set in memory, whatever form it was read from."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathencoder.heads.data.empty import is_empty
from pathencoder.images import ImageSource
from pathencoder.walk import natural, printable

TRAIN = "train"
TRAIN_WORDS = "Call the train part train or training; given folds are numbers (1, fold2)"
# names of one part, as data sets write them
_SPLITS = {
    "training": TRAIN,
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
    "folds": TRAIN,  # to be split into folds that are made here
}
# at most 18 digits: Python refuses to read very long numbers
_WHOLE = re.compile(r"([+-]?)0*(\d{1,18})(?:\.0*)?")


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    Attributes:
        images: A path, or an image in memory in any form that `Encoder.encode` takes, each.
        labels: The class of each; numbers become text.
        groups: The patient, slide or case of each, likewise. None: not known.
        splits: The part of each: "train", "val", "test" or another held-out part; "fold1", "fold2"
            and so on are train parts with given folds. Other words for these ("training") become
            these. None: all are "train".
        where: What messages call each; () for the paths, or the numbers of images in memory.
        notes: What was assumed or left out when it was read, as sentences.
        unit: What is labelled: "images", "slides" or "patients".
    """

    images: tuple[ImageSource, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    where: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unit: str = "images"

    def __post_init__(self) -> None:
        """Numbers as text and parts by their names: people make data sets of columns of pandas."""
        for name in ("labels", "groups", "splits"):
            values = getattr(self, name)
            if values is not None:
                texts = tuple(v if isinstance(v, str) else text_of(v) for v in values)
                object.__setattr__(self, name, split_names(texts) if name == "splits" else texts)

    def __len__(self) -> int:
        return len(self.images)

    @functools.cached_property  # asked for a row at a time
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, in natural order (2 before 10)."""
        return in_order(self.labels)

    def name(self, row: int) -> str:
        """What messages call a row."""
        if self.where:
            return self.where[row]
        image = self.images[row]
        return printable(image) if isinstance(image, str | os.PathLike) else f"images[{row}]"

    def part(self, row: int) -> str:
        """The part of a row: a given fold counts as "train"."""
        split = TRAIN if self.splits is None else self.splits[row]
        return TRAIN if is_fold(split) else split

    def rows_of(self, part: str) -> list[int]:
        """The rows of a part, in order."""
        return [row for row in range(len(self)) if self.part(row) == part]

    def take(self, rows: Sequence[int]) -> Dataset:
        """The same data set with these rows alone."""

        def taken(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[row] for row in rows)

        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            groups=taken(self.groups),
            splits=taken(self.splits),
            where=tuple(self.name(row) for row in rows),
        )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The different names of classes, in natural order (2 before 10)."""
    # "a" and "./a" are one path: the name itself decides then, not the order of a set
    return tuple(sorted(set(names), key=lambda name: (natural(Path(name)), name)))


def text_of(value: Any) -> str:
    """A label, group or split of any kind as text; None and NaN as empty text, or "nan".

    Args:
        value: Also a number of NumPy, or a tensor of one value.
    """
    if getattr(value, "ndim", None) == 0:  # without an import of PyTorch
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # pandas makes 1.0 of 1
        return str(int(value))
    return str(value)


def whole_number(text: str) -> str | None:
    """The usual spelling of a whole number ("7" of "07" and of "7.0"); None where it is none."""
    match = _WHOLE.fullmatch(text.strip())
    return None if match is None else match[1].removeprefix("+") + match[2]


def split_name(text: str) -> str:
    """The part that a value of a split column or the name of a folder means; "" for none."""
    folded = text.strip().casefold()
    number = whole_number(folded)  # pandas writes folds as 0.0 where a row has none
    return "" if is_empty(folded) else number or _SPLITS.get(folded, folded)


def split_names(texts: Iterable[str]) -> tuple[str, ...]:
    """The parts that all values of a split column mean.

    Args:
        texts: A value a row.

    Returns:
        "train" for every row where none has a value; "" for those without one among others, which
        a check refuses.
    """
    texts = tuple(texts)
    known = {text: split_name(text) for text in set(texts)}
    names = tuple(known[text] for text in texts)
    return names if any(names) else (TRAIN,) * len(names)


def is_fold(split: str) -> bool:
    """Whether a split is the number of a fold: "fold1", "fold_2" or "3"."""
    return split.removeprefix("fold").strip(" _-").isdecimal()
