"""Open every image and its labels once, and note what they hold and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, ImageError
from pathencoder.heads.data.listing import Found
from pathencoder.heads.data.marks import Marks, Mask
from pathencoder.heads.data.truth import Kind, Reading, components
from pathencoder.walk import printable

_OUTSIDE = 1.0  # px that a point may lie beyond the border: half pixels are counted differently
_HINT = "x and y are pixels of this image, not of a slide that it was cut from, and not micrometres"


@dataclass(frozen=True)
class Facts:
    """What the labels of one image hold.

    Attributes:
        values: The distinct numbers of its map; None without a map.
        parts: Connected parts of its map that are not 0.
        areas: Number of areas of each class.
        points: Number of points of each class.
        clipped: Areas that reach beyond the image.
        left_out: What was not used, as short phrases.
        kinds: As in `Marks`, as is the next.
        numbered: Whether the classes of points may be their numbers.
    """

    values: NDArray[np.int64] | None = None
    parts: int = 0
    areas: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    left_out: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    numbered: bool | None = None

    @property
    def objects(self) -> int:
        """Number of numbers above 0, areas and points."""
        mapped = 0 if self.values is None else int((self.values > 0).sum())
        return mapped + self.areas.total() + self.points.total()


def survey(row: Found, kind: Kind, mpp: float | None) -> tuple[Facts, list[str]]:
    """Open an image and its labels.

    Args:
        row: The image.
        kind: What the task learns.
        mpp: Its micrometres per pixel; None where they are not known: points in micrometres are
            then not compared with the size of the image.

    Returns:
        What its labels hold, and what is wrong, as sentences without the name of the row.
    """
    problems: list[str] = []
    shape: tuple[int, int] | None = None
    try:
        shape = row.pixels().shape[:2]  # type: ignore[assignment]
    except ImageError as error:
        problems.append(f"{error}")
    try:
        marks = row.labels.read(mpp or 1.0)
    except (ImageError, ConfigError) as error:
        return Facts(), [*problems, f"{error}"]
    facts = replace(_facts(marks, kind, shape), kinds=marks.kinds, numbered=marks.numbered)
    if shape is not None:
        problems += _misfits(row, marks, kind, shape)
        if marks.size in (None, shape) and mpp is not None:
            problems += _bad_points(marks, row.labels.name, shape)
    return facts, problems


def _facts(marks: Marks, kind: Kind, shape: tuple[int, int] | None) -> Facts:
    points = kind == "points"
    left_out = list(marks.left_out)
    if not points and len(marks.points) and marks.map is None:
        left_out.append(f"{len(marks.points)} points")
    clipped = 0 if shape is None else sum(_beyond(a.box, shape) for a in marks.areas)
    names, areas = Counter(marks.names if points else ()), Counter(a.name for a in marks.areas)
    if marks.map is None or (points and (names or areas)):
        if kind == "objects" and shape is not None and areas:
            left_out += _hidden(marks, shape)
        return Facts(None, 0, areas, names, clipped, tuple(left_out))
    parts = 0 if kind == "classes" else int(components(marks.map).max(initial=0))
    values = np.unique(marks.map).astype(np.int64)
    return Facts(values, parts, Counter(), Counter(), 0, tuple(left_out))


def _hidden(marks: Marks, shape: tuple[int, int]) -> Iterator[str]:
    """The outlines that leave no pixel, or only covered ones."""
    every = Reading("objects", numbers=dict.fromkeys((area.name for area in marks.areas), 0))
    drawn, _ = every.truth(Marks(areas=marks.areas), shape)
    lost = len(marks.areas) - np.count_nonzero(np.unique(drawn))
    if lost:
        yield f"{lost} outlines that hold no pixel or lie under others"


def _misfits(row: Found, marks: Marks, kind: Kind, shape: tuple[int, int]) -> Iterator[str]:
    name = row.labels.name
    for size in (marks.size, None if marks.map is None else marks.map.shape):
        if size is not None and tuple(size) != shape:
            yield (
                f"{name} is of {size[1]} x {size[0]} px, the image of {shape[1]} x {shape[0]}: they"
                " must have the same size"
            )
            return
    if kind != "points" and len(marks.points) and marks.map is None and not marks.areas:
        yield f"{name} holds points alone; the task needs outlines or a label map"
        return
    away = [area.box for area in marks.areas if _outside(area.box, shape)]
    if away:
        left, top, *_ = away[0]
        yield (
            f"{name}: {len(away)} of {len(marks.areas)} outlines lie outside the image of"
            f" {shape[1]} x {shape[0]} px, the first at ({left:g}, {top:g}): {_HINT}"
        )


def _bad_points(marks: Marks, name: str, shape: tuple[int, int]) -> Iterator[str]:
    finite: Mask = np.asarray(np.isfinite(marks.points).all(1))
    if not finite.all():
        yield f"{name}: {(~finite).sum()} of {len(finite)} points have a coordinate that is NaN"
    points = marks.points[finite]
    limits = np.array([shape[1], shape[0]]) - 0.5 + _OUTSIDE
    out = ((points < -0.5 - _OUTSIDE) | (points > limits)).any(1)
    if out.any():
        x, y = points[out][0]
        yield (
            f"{name}: {out.sum()} of {len(points)} points lie outside the image of {shape[1]} x"
            f" {shape[0]} px, the first at ({x:g}, {y:g}): {_HINT}"
        )


def _outside(box: tuple[float, float, float, float], shape: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    return right <= 0 or bottom <= 0 or left >= shape[1] or top >= shape[0]


def _beyond(box: tuple[float, float, float, float], shape: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    return min(left, top) < -_OUTSIDE or right > shape[1] + _OUTSIDE or bottom > shape[0] + _OUTSIDE


def named(row: Found, problem: str) -> str:
    """A problem with the name of its row, where it does not begin with it."""
    image = printable(row.image)
    if problem.startswith((f"{row.where}: ", f"{row.where} ")):
        return problem
    if row.where == image and problem.startswith(image):
        return problem
    return f"{row.where}: {problem}"
