"""The labels of one image in the form in which they are stored: a map, areas or points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathencoder.geojson import Ring
from pathencoder.slides.rings import mask_of

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Window = tuple[slice, slice]


def no_points() -> Points:
    """An array of no points [0, 2]."""
    return np.zeros((0, 2))


@dataclass(frozen=True)
class Area:
    """One object or region.

    Attributes:
        name: Its class; "" without one.
        polygons: Each its outer ring, then its holes: x and y in pixels, the outer edge of the
            first pixel at 0.
        filled: A mask in place of polygons, without empty rows and columns around it.
        origin: X and y of the first pixel of the mask.
    """

    name: str
    polygons: Sequence[Sequence[Ring]] = ()
    filled: Mask | None = field(default=None, compare=False)
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def of_mask(cls, name: str, mask: Mask) -> Area:
        """An area of a mask [H, W] of its image."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return cls(name, filled=mask[:0, :0])
        top, left = int(rows[0]), int(columns[0])
        window = mask[top : rows[-1] + 1, left : columns[-1] + 1]
        return cls(name, filled=window.copy(), origin=(left, top))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom; all 0 where it holds nothing."""
        if self.filled is not None:
            height, width = self.filled.shape
            x, y = self.origin
            return float(x), float(y), float(x + width), float(y + height)
        points = np.concatenate([rings[0] for rings in self.polygons])
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return float(left), float(top), float(right), float(bottom)

    def mask(self, shape: tuple[int, int]) -> tuple[Window, Mask]:
        """The pixels whose centres lie inside.

        Args:
            shape: Of the image: H, W.

        Returns:
            A window of the image and the mask in it.
        """
        left, top, right, bottom = self.box
        rows = slice(*(int(np.clip(f, 0, shape[0])) for f in (np.floor(top), np.ceil(bottom))))
        columns = slice(*(int(np.clip(f, 0, shape[1])) for f in (np.floor(left), np.ceil(right))))
        window = (rows, columns)
        if self.filled is not None:
            x, y = self.origin
            return window, self.filled[: rows.stop - y, : columns.stop - x]
        origin = (columns.start, rows.start)
        size = (rows.stop - rows.start, columns.stop - columns.start)
        return window, mask_of([[r - origin for r in rings] for rings in self.polygons], size)

    def centre(self) -> tuple[float, float]:
        """X and y of the centre of mass, the centre of the first pixel at 0."""
        if self.filled is not None:
            y, x = np.nonzero(self.filled)
            if not len(x):
                return np.nan, np.nan
            return float(x.mean()) + self.origin[0], float(y.mean()) + self.origin[1]
        size, x, y = (sum(parts) for parts in zip(*map(_moments, self.polygons), strict=True))
        if size:
            return x / size - 0.5, y / size - 0.5
        x, y = np.concatenate([rings[0][:-1] for rings in self.polygons]).mean(0)
        return float(x) - 0.5, float(y) - 0.5


@dataclass(frozen=True)
class Marks:
    """All labels of one image.

    Attributes:
        map: Numbers [H, W], of objects or of classes; None where there is no map.
        areas: Objects or regions.
        points: X and y [N, 2], the centre of the first pixel at 0.
        names: The class of each point; "" without one.
        size: Height and width that the labels state for their image; None where they do not.
        left_out: What was not used, as short phrases ("2 crowds").
        kinds: Of QuPath's objects, which are among them: "detection" (also cells), "annotation".
        numbered: The names count up from point to point: they may be numbers of points, not
            classes. None where the column of the classes is named after them.
    """

    map: NDArray[np.integer] | None = None
    areas: Sequence[Area] = ()
    points: Points = field(default_factory=no_points)
    names: Sequence[str] = ()
    size: tuple[int, int] | None = None
    left_out: Sequence[str] = ()
    kinds: frozenset[str] = frozenset()
    numbered: bool | None = None


class Source(Protocol):
    """Where the labels of an image are stored.

    Attributes:
        name: What messages call it.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    def read(self, mpp: float) -> Marks:
        """Read the labels.

        Args:
            mpp: Micrometres per pixel of the image, for coordinates in micrometres.

        Returns:
            The labels.

        Raises:
            ImageError: The file of labels is missing, damaged, or not one that can be used.
            ConfigError: The same of a table.
        """


def _moments(rings: Sequence[Ring]) -> tuple[float, float, float]:
    """Area of a polygon without its holes, and its integrals of x and y."""
    total = np.zeros(3)
    for number, ring in enumerate(rings):
        origin = ring[0]
        x, y = (ring - origin).T
        cross = x[:-1] * y[1:] - x[1:] * y[:-1]
        area = cross.sum() / 2
        first = ((x[:-1] + x[1:]) * cross).sum() / 6 + origin[0] * area
        second = ((y[:-1] + y[1:]) * cross).sum() / 6 + origin[1] * area
        sign = np.sign(area) * (1 if number == 0 else -1)
        total += sign * np.array([area, first, second])
    return float(total[0]), float(total[1]), float(total[2])
