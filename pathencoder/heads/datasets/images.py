"""Images with a class: a folder a class, as several sets have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.datasets.places import files_of, listed, required
from pathencoder.heads.datasets.public_set import PublicSet
from pathencoder.images import SUFFIXES
from pathencoder.walk import printable


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        image: Its file.
        label: Its class.
        part: Its part.
        group: Its patient. None: not known.
    """

    image: Path
    label: str
    part: str
    group: str | None = None


def dataset(rows: Iterable[Row], notes: Iterable[str] = ()) -> Dataset:
    """A data set of rows; without groups where one of them has none.

    Args:
        rows: The images.
        notes: On how they were read.

    Returns:
        The data set.
    """
    kept = list(rows)
    groups = tuple(row.group or "" for row in kept)
    return Dataset(
        images=tuple(row.image for row in kept),
        labels=tuple(row.label for row in kept),
        groups=groups if all(groups) else None,
        splits=tuple(row.part for row in kept),
        notes=tuple(notes),
    )


def class_folders(
    folder: Path, part: str, labels: Iterable[str], public: PublicSet
) -> tuple[list[Row], list[str]]:
    """Read a folder that has one folder a class.

    Args:
        folder: The folder.
        part: The part that it is.
        labels: The classes, which are the names of the folders.
        public: The set.

    Returns:
        The images, and notes on what was left out.

    Raises:
        ConfigError: The folder of a class is missing.
    """
    wanted = list(labels)
    required([folder / label for label in wanted], folder.parent, public)
    rows = [
        Row(file, label, part) for label in wanted for file in files_of(folder / label, SUFFIXES)
    ]
    others = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in wanted)
    others = [printable(name) for name in others if not name.startswith(".")]
    where = printable(folder.name)
    notes = [f"{where}: left out, no classes of the set: {listed(others)}"] if others else []
    return rows, notes
