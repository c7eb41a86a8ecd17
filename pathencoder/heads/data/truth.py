"""From the labels that a file holds to what a task learns: objects, classes of pixels, points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import MissingExtra
from pathencoder.heads.data.marks import Area, Marks, Mask, Points, Window
from pathencoder.heads.dense.targets import IGNORED

Kind = Literal["objects", "classes", "points"]
Classes = NDArray[np.int64]
UNKNOWN = -1  # class of a point that has none
BACKGROUND = "background"


@dataclass(frozen=True)
class Reading:
    """How the labels of a whole set are read.

    Attributes:
        kind: What the task learns.
        names: The classes, by number; () where there are none.
        values: Of a map of classes: stored number to number of a class, or `IGNORED`.
        numbers: Stored name of a class to its number; None where it is not learned: of "classes",
            its pixels are `IGNORED`. Areas and points of a name that is missing here are left out.
        outside: Of areas, the number of pixels in none of them.
        separate: Maps have one number for all objects, so that connected pixels are one object.
    """

    kind: Kind
    names: tuple[str, ...] = ()
    values: Mapping[int, int] = field(default_factory=dict)
    numbers: Mapping[str, int | None] = field(default_factory=dict)
    outside: int = 0
    separate: bool = False

    def truth(
        self, marks: Marks, shape: tuple[int, int]
    ) -> tuple[NDArray[np.integer] | Points, Classes | None]:
        """What the task learns from one image.

        Args:
            marks: Its labels.
            shape: Of the image: H, W.

        Returns:
            A label map int32 [H, W], or points [N, 2]; and the classes of the points [N], None
            where the set has no classes of points.
        """
        if self.kind == "points":
            return self._points(marks)
        if self.kind == "classes":
            return self._classes(marks, shape), None
        return self._objects(marks, shape), None

    def _objects(self, marks: Marks, shape: tuple[int, int]) -> NDArray[np.int32]:
        if marks.map is not None:
            return components(marks.map) if self.separate else marks.map.astype(np.int32)
        kept = [area for area in marks.areas if self.numbers.get(area.name) is not None]
        found = np.zeros(shape, np.int32)
        for number, (window, mask) in enumerate(self._masks(kept, shape), 1):
            found[window][mask] = number
        return found

    def _classes(self, marks: Marks, shape: tuple[int, int]) -> NDArray[np.int32]:
        if marks.map is not None:
            table = np.full(int(marks.map.max(initial=0)) + 1, IGNORED, np.int32)
            for stored, number in self.values.items():
                if stored < len(table):
                    table[stored] = number
            mapped: NDArray[np.int32] = table[marks.map]
            return mapped
        found = np.full(shape, self.outside, np.int32)
        for area in sorted(marks.areas, key=_size, reverse=True):  # small ones lie on large ones
            if area.name in self.numbers:
                known = self.numbers[area.name]
                window, mask = area.mask(shape)
                found[window][mask] = IGNORED if known is None else known
        return found

    def _masks(self, areas: list[Area], shape: tuple[int, int]) -> list[tuple[Window, Mask]]:
        """Large ones first: a small object that lies on a large one is kept."""
        return [area.mask(shape) for area in sorted(areas, key=_size, reverse=True)]

    def _points(self, marks: Marks) -> tuple[Points, Classes | None]:
        points, names = points_of(marks, separate=self.separate)
        kept = np.array([self.numbers.get(name) is not None for name in names], bool)
        numbers = [self.numbers.get(name) for name in names]
        classes = np.array([n for n in numbers if n is not None], np.int64)
        return points[kept], classes if self.names else None


def points_of(marks: Marks, *, separate: bool = False) -> tuple[Points, list[str]]:
    """Points with their classes: those that are stored, else the centres of areas or objects.

    Args:
        marks: The labels of an image.
        separate: A map has one number for all objects.

    Returns:
        X and y [N, 2], the centre of the first pixel at 0; and the class of each, "" without one.
    """
    points, names = marks.points, list(marks.names)
    if marks.areas:
        centres = np.array([area.centre() for area in marks.areas]).reshape(-1, 2)
        return np.concatenate([points, centres]), names + [area.name for area in marks.areas]
    if len(points) or marks.map is None:
        return points, names
    found = centres_of(components(marks.map) if separate else marks.map)
    return found, [""] * len(found)


def centres_of(labels: NDArray[np.integer]) -> Points:
    """X and y of the centre of mass of each object of a map [N, 2]."""
    numbers, index = np.unique(labels, return_inverse=True)
    index = index.ravel()
    rows, columns = (axis.ravel() for axis in np.indices(labels.shape))
    count = np.bincount(index, minlength=len(numbers))
    centres = np.stack([np.bincount(index, axis) / count for axis in (columns, rows)], 1)
    found: Points = centres[numbers > 0]
    return found


def components(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """The connected parts of a mask, numbered from 1; pixels that touch at a corner are one."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingExtra.of("heads", "separating the objects of a mask") from error
    found, _ = ndimage.label(labels > 0, np.ones((3, 3)))
    numbered: NDArray[np.int32] = found.astype(np.int32)
    return numbered


def _size(area: Area) -> float:
    left, top, right, bottom = area.box
    return (right - left) * (bottom - top)
