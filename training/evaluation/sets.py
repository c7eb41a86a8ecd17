"""The labelled sets of the probe: folders with a labels.csv, and cells around annotated points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.files import make_folder
from training.data.spaced import evenly_spaced
from training.evaluation.cells import cut_cells
from training.evaluation.known_sets import BY_NAME, CELL_SETS, TILE_SETS
from training.evaluation.probe import Labels, part_of, read_labels
from training.evaluation.set_lists import folder_of, how_to_obtain
from training.files import stamp_of

__all__ = ["CELL_SETS", "SETS", "TILE_SETS", "ProbeSet", "open_sets", "own_set"]

SETS = (*TILE_SETS, *CELL_SETS)


@dataclass(frozen=True)
class ProbeSet:
    """A labelled set and the part of it that is reported.

    Attributes:
        name: Its name in tables.
        folder: Of its images.
        labels: Its rows.
        part: The held-out part that is reported; None: five folds by group.
        choose: It holds rows of train parts alone.
    """

    name: str
    folder: Path
    labels: Labels
    part: str | None
    choose: bool

    @property
    def stamp(self) -> str:
        """16 hexadecimal digits that change with its rows or one of its images."""
        rows = self.labels
        digest = hashlib.sha256(stamp_of(self.folder / file for file in rows.files).encode())
        for column in (rows.names, rows.y, rows.groups, rows.split):
            digest.update(repr(np.asarray(column).tolist()).encode())
        return digest.hexdigest()[:16]


def open_sets(names: Sequence[str], *, data: Path, cache: Path, choose: bool) -> list[ProbeSet]:
    """Open the sets of these names.

    Args:
        names: Of `SETS`.
        data: Folder of the sets.
        cache: Folder in which cut cells are kept.
        choose: Rows of train parts alone, reported by folds: for choices.

    Returns:
        The sets, in the order of their names.

    Raises:
        ConfigError: A name is no set, or a set is not there; the message says where it is had.
    """
    unknown = sorted(set(names) - set(SETS))
    if unknown:
        raise ConfigError(f"--sets: no probe set {unknown}; there are {', '.join(SETS)}")
    return [_open(name, data, cache, choose=choose) for name in names]


def own_set(table: Path, *, choose: bool) -> ProbeSet:
    """A table of somebody's own labels as a set.

    Args:
        table: Columns file, label and, optionally, group and split; in the folder of its images.
        choose: Rows of train parts alone, reported by folds: for choices.

    Raises:
        ConfigError: It cannot be read (see `read_label_rows`), has one class, or fewer than two
            groups.
    """
    labels = read_labels(table, choose=choose)
    if len(labels.names) < 2:
        raise ConfigError(f"{table}: all rows are {labels.names[0]!r}; a probe needs two classes")
    if len(set(labels.groups.tolist())) < 2:
        raise ConfigError(f"{table}: all rows are of one group; folds need two or more")
    part = None if choose else part_of(labels)
    return ProbeSet(table.stem, table.parent, labels, part, choose)


def few_of(s: ProbeSet, each: int) -> ProbeSet:
    """A set with at most so many images of each class, evenly spaced in its table."""
    labels = s.labels
    members = (np.flatnonzero(labels.y == number) for number in range(len(labels.names)))
    rows = np.sort(np.concatenate([m[evenly_spaced(len(m), each)] for m in members]))
    fewer = replace(
        labels,
        files=[labels.files[row] for row in rows],
        y=labels.y[rows],
        groups=labels.groups[rows],
        split=labels.split[rows],
    )
    return replace(s, labels=fewer)


def _open(name: str, data: Path, cache: Path, *, choose: bool) -> ProbeSet:
    known = BY_NAME[name]
    folder = folder_of(known, data)
    if folder is None:
        raise ConfigError(f"{how_to_obtain(known, data)}. Another folder of data: --data")
    table = folder / "labels.csv"
    if known.cells:
        files = stamp_of(file for file in folder.rglob("*") if file.is_file())
        table = make_folder(cache / "cells") / f"{name}-{files}" / "labels.csv"
        if not table.is_file():
            cut_cells(folder, known.cells, table.parent)
    labels = read_labels(table, choose=choose)
    return ProbeSet(name, table.parent, labels, None if choose else part_of(labels), choose)
