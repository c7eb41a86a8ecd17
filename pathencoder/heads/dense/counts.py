"""Counts of cells by class, and the share of one class with an interval over images."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.metrics import Interval, grouped_bootstrap
from pathencoder.tables import read_table
from pathencoder.walk import expanded, natural, printable

_PROBABILITY = "p_"  # begins the name of a column, before that of its class


@dataclass(frozen=True)
class Counts:
    """How many cells of each class every image has.

    Attributes:
        images: Names.
        classes: Names of the columns.
        table: int64 [images, classes].
    """

    images: tuple[str, ...]
    classes: tuple[str, ...]
    table: NDArray[np.int64]

    def total(self) -> dict[str, int]:
        """Cells of each class in all images."""
        return dict(zip(self.classes, self.table.sum(0).tolist(), strict=True))

    def shares(self, positive: str, *, among: Sequence[str] | None = None) -> NDArray[np.float64]:
        """The share of one class in each image [N], NaN where it has no cell.

        Args:
            positive: The class.
            among: The classes that count as a whole. None: all.

        Raises:
            ConfigError: There is no such class.
        """
        hits, all_cells = self._columns(positive, among)
        with np.errstate(invalid="ignore"):
            return np.asarray(hits / all_cells, np.float64)

    def share(
        self,
        positive: str,
        *,
        among: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Interval:
        """The share of one class in all images together, with a 95 % bootstrap interval.

        With positive and negative nuclei of Ki67 it is the labelling index.

        Args:
            positive: The class.
            among: The classes that count as a whole. None: all.
            groups: Patient or slide of each image, which are drawn whole. None: images are drawn.
            seed: Of the draws.

        Returns:
            Pooled over the cells; its interval is over images or groups, never over cells.

        Raises:
            ConfigError: There is no such class, or no cell at all.
        """
        hits, all_cells = self._columns(positive, among)
        if not all_cells.sum():
            raise ConfigError("a share of no cells: no image has a cell of these classes")

        def pooled(rows: NDArray[np.int64]) -> float:
            if not (whole := all_cells[rows].sum()):
                raise ConfigError("no cell was drawn")
            return float(hits[rows].sum() / whole)

        names = range(len(self.images)) if groups is None else groups
        return grouped_bootstrap(pooled, names, seed=seed)

    def to_csv(self, *, positive: str | None = None, among: Sequence[str] | None = None) -> str:
        """A row for each image: its name, the count of each class, and their sum.

        Args:
            positive: A class whose share is a further column, in 0..1; empty without cells.
            among: The classes that count as a whole for the share. None: all.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        named = [] if positive is None else [f"{positive}_share"]
        writer.writerow(["image", *self.classes, "cells", *named])
        shares = None if positive is None else self.shares(positive, among=among)
        for i, (name, row) in enumerate(zip(self.images, self.table.tolist(), strict=True)):
            more = []
            if shares is not None:
                more = ["" if np.isnan(shares[i]) else f"{shares[i]:.4f}"]
            writer.writerow([name, *row, sum(row), *more])
        return text.getvalue()

    def _columns(
        self, positive: str, among: Sequence[str] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        whole = list(self.classes if among is None else among)
        if unknown := [name for name in (positive, *whole) if name not in self.classes]:
            raise ConfigError(f"no class {unknown[0]!r}: the classes are {', '.join(self.classes)}")
        if positive not in whole:
            raise ConfigError(f"{positive!r} is not among {', '.join(whole)}")
        columns = [self.classes.index(name) for name in whole]
        return self.table[:, self.classes.index(positive)], self.table[:, columns].sum(1)


def count(labels: Mapping[str, Sequence[str]], classes: Sequence[str]) -> Counts:
    """Count the cells of each class.

    Args:
        labels: The labels of the cells, by the name of their image.
        classes: The classes, in the order of the columns.

    Returns:
        The counts.

    Raises:
        ConfigError: A label is none of the classes.
    """
    number_of = {label: i for i, label in enumerate(classes)}
    table = np.zeros((len(labels), len(classes)), np.int64)
    for row, (name, found) in enumerate(labels.items()):
        if unknown := sorted(set(found) - set(number_of)):
            raise ConfigError(
                f"{name}: cells of class {unknown[0]!r}, the classes are {', '.join(classes)}"
            )
        table[row] = np.bincount([number_of[x] for x in found], minlength=len(classes))
    return Counts(tuple(labels), tuple(classes), table)


def read_counts(folder: str | os.PathLike[str]) -> Counts:
    """Count the cells in the tables of points below a folder, as a dense head writes them.

    Args:
        folder: What `pathencoder predict HEAD INPUTS --out FOLDER` wrote. Other tables are left
            out; the name of an image is that of its table, relative to the folder.

    Returns:
        The counts, images in natural order of their paths.

    Raises:
        ConfigError: There is no table of points with classes.
    """
    root = expanded(folder)
    labels: dict[str, list[str]] = {}
    classes: dict[str, str] = {}  # case-folded to the name
    for file in sorted(root.rglob("*.csv"), key=natural):
        table = read_table(file)
        if not {"x", "y", "class"} <= set(table.columns):
            continue
        found = [row["class"] for row in table.rows]
        classes |= {c.casefold(): c for c in _named(file, table.delimiter)}
        classes |= {c.casefold(): c for c in found}
        labels[file.relative_to(root).with_suffix("").as_posix()] = found
    if not labels:
        raise ConfigError(
            f"{printable(root)} holds no table of points with classes: give the folder that"
            " `pathencoder predict HEAD INPUTS --out FOLDER` wrote"
        )
    return count(labels, list(classes.values()))


def _named(file: Path, delimiter: str) -> list[str]:
    """The classes that the header of a table of points names, also those that no cell is of."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        header = [name.strip() for name in next(csv.reader(stream, delimiter=delimiter), [])]
    return [name[len(_PROBABILITY) :] for name in header if name.lower().startswith(_PROBABILITY)]
