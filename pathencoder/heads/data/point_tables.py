"""Tables of points (CSV): x, y and class, in pixels or micrometres, of one image or of many."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import whole_number
from pathencoder.heads.data.empty import is_empty
from pathencoder.heads.data.marks import Marks, Points
from pathencoder.heads.data.outlines import DETECTED, kinds_of
from pathencoder.tables import Table, number, read_table
from pathencoder.walk import printable

CLASSES = ("class", "classification", "label", "type")
IMAGES = ("image", "path", "file", "filename", "image_path")
_OF_PREDICT = "height"  # of the peak, in the tables that `pathencoder predict` writes
_OBJECT = "object type"  # of QuPath's measurements
_UNUSED = ("image", "root", "tile", "tma core")  # its types that are no labels
_LABEL = "label"  # of a point: its class, or its number as ImageJ writes it
# "x", "x_um", "centroid x µm" (casefold makes the micro sign a mu), "centroid x px"
_AXIS = re.compile(
    r"(?P<centroid>centroid[ _])?(?P<axis>[xy])(?:[ _]?[(\[]?(?P<unit>px|pixels?|[uμ]m)[)\]]?)?"
)


class Columns(NamedTuple):
    """The columns of x and y, and their unit.

    Attributes:
        x: Name of the column.
        y: Likewise.
        um: Micrometres; else pixels.
        corner: 0 is the outer edge of the first pixel, as in QuPath; else its centre.
    """

    x: str
    y: str
    um: bool
    corner: bool


@dataclass(frozen=True)
class PointTable:
    """A table whose points are all of one image.

    Attributes:
        path: The file.
        label: A column "label" may hold the classes.
        only: As in `GeoJson`.
    """

    path: Path
    label: bool = True
    only: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.path)

    def read(self, mpp: float) -> Marks:
        """The points.

        Raises:
            ConfigError: It cannot be read, lacks columns, or has a value that is no number.
        """
        table = read_table(self.path)
        columns = columns_of(table)
        if columns is None:
            raise ConfigError(
                f"{self.name}: no columns x and y in pixels, or x_um and y_um; the columns are"
                f" {', '.join(table.columns) or 'none'}"
            )
        classes = [c for c in CLASSES if c in table.columns and (self.label or c != _LABEL)]
        return _marks(table, range(len(table.rows)), columns, classes, self.only, mpp)

    def without_label(self) -> PointTable:
        """The same table, whose column "label" does not hold classes."""
        return replace(self, label=False)


@dataclass(frozen=True)
class PointRows:
    """The rows of one image in a table of many.

    Attributes:
        table: The table.
        rows: Their numbers.
        columns: Where x and y are.
        classes: The columns that may hold the classes: the first is read.
        only: As in `GeoJson`.
    """

    table: Table
    rows: tuple[int, ...]
    columns: Columns
    classes: tuple[str, ...] = ()
    only: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.table.where(self.rows[0]))

    def read(self, mpp: float) -> Marks:
        """The points.

        Raises:
            ConfigError: A value is no number.
        """
        return _marks(self.table, self.rows, self.columns, self.classes, self.only, mpp)

    def without_label(self) -> PointRows:
        """The same rows, whose column "label" does not hold classes."""
        return replace(self, classes=tuple(name for name in self.classes if name != _LABEL))


def columns_of(table: Table) -> Columns | None:
    """The columns of x and y; pixels are preferred. None where there are none."""
    ours = _OF_PREDICT in table.columns
    found: dict[tuple[bool, bool], dict[str, str]] = defaultdict(dict)
    for name in table.columns:
        if match := _AXIS.fullmatch(name):
            um = (match["unit"] or "").endswith("m")
            # micrometres, QuPath's centroids and our own tables count from the corner of the image
            key = (um, um or ours or match["centroid"] is not None)
            found[key].setdefault(match["axis"], name)
    for (um, corner), axes in sorted(found.items()):
        if len(axes) == 2:
            return Columns(axes["x"], axes["y"], um, corner)
    return None


def by_image(table: Table, column: str, columns: Columns) -> dict[str, PointRows]:
    """The points of each image of a table.

    Args:
        table: The table.
        column: That names the image.
        columns: Of x and y.

    Returns:
        Image, as the table names it, to its rows.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(table.rows):
        rows[row[column]].append(index)
    present = [name for name in CLASSES if name in table.columns]
    classes = tuple(c for c in present if any(not is_empty(row[c]) for row in table.rows))
    return {
        image: PointRows(table, tuple(of_it), columns, classes) for image, of_it in rows.items()
    }


def _marks(
    table: Table,
    rows: Sequence[int],
    columns: Columns,
    classes: Sequence[str],
    only: str,
    mpp: float,
) -> Marks:
    used, left_out = _labels_among(table, rows, only)
    points = _points(table, used, columns)
    if columns.um:
        points = points / mpp
    if columns.corner:
        points = points - 0.5
    kind = classes[0] if classes else None
    names = [table.rows[row][kind] if kind else "" for row in used]
    types = {table.rows[row].get(_OBJECT, "").casefold() for row in used}
    return Marks(
        points=points,
        names=names,
        left_out=left_out,
        kinds=kinds_of(types),
        numbered=_count_up(names) if kind == _LABEL and any(names) else None,
    )


def _count_up(names: Sequence[str]) -> bool:
    """Whether names are whole numbers, each larger than the one before, as of rows (ImageJ)."""
    numbers = [int(number) for name in names if (number := whole_number(name))]
    return len(numbers) == len(names) and all(a < b for a, b in itertools.pairwise(numbers))


def _labels_among(table: Table, rows: Sequence[int], only: str) -> tuple[list[int], list[str]]:
    """The rows that are labels: of QuPath's, where there are detections, those alone."""
    if _OBJECT not in table.columns:
        return list(rows), []
    kinds = {row: table.rows[row][_OBJECT].casefold() for row in rows}
    detected = only == "detection" or any(kind in DETECTED for kind in kinds.values())
    used = [
        row
        for row, kind in kinds.items()
        if kind in DETECTED or (not detected and kind not in _UNUSED)
    ]
    others = len(kinds) - len(used)
    return used, [f"{others} objects of other types than detections"] if others else []


def _points(table: Table, rows: Sequence[int], columns: Columns) -> Points:
    points = np.empty((len(rows), 2))
    for place, row in enumerate(rows):
        for axis, column in enumerate(columns[:2]):
            text = table.rows[row][column]
            try:
                points[place, axis] = number(text, table.delimiter)
            except ValueError:
                raise ConfigError(
                    f"{printable(table.where(row))}: {column} is {text!r}, not a number"
                ) from None
    return points
