"""Outlines of labelled objects along the edges of their pixels, many at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
Points = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

# The edges of a pixel in the order in which they are traced: above, right, below, left. Steps in
# (row, column) to the neighbour beyond each edge; and points of each edge, as (x, y).
_BEYOND = ((-1, 0), (0, 1), (1, 0), (0, -1))
MIDPOINTS = np.array([[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]])
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # where each edge begins


@dataclass(frozen=True)
class Rings:
    """Closed polygons (rings) in one array.

    Attributes:
        points: float64 [N, 2], x and y; the first point of each ring is repeated as its last.
        starts: int64 [R + 1]; ring r is points[starts[r] : starts[r + 1]].
    """

    points: Points
    starts: Index

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Points:
        return self.points[self.starts[number] : self.starts[number + 1]]

    @property
    def sizes(self) -> Index:
        """Number of points of each ring with the closing one: [R]."""
        return np.diff(self.starts)

    def areas(self) -> Points:
        """Signed area of each ring, positive if it is counter-clockwise: [R]."""
        return np.asarray(np.add.reduceat(crosses(self, self.points), self.starts[:-1]) / 2)

    def chosen(self, rings: Index) -> Rings:
        """These rings, in this order."""
        sizes = self.sizes[rings]
        starts = np.append(0, np.cumsum(sizes))
        indices = np.repeat(self.starts[rings] - starts[:-1], sizes) + np.arange(starts[-1])
        return Rings(self.points[indices], starts)

    def thinned(self, kept: Flags) -> Rings:
        """The same rings with only these points [N], among them the first and last of each ring."""
        sizes = np.add.reduceat(kept, self.starts[:-1], dtype=np.int64)
        return Rings(self.points[kept], np.append(0, np.cumsum(sizes)))


def crosses(rings: Rings, points: Points) -> Points:
    """Cross product of each point with the next of its ring; 0 at a ring's last point: [N].

    Args:
        rings: Where each ring begins and ends.
        points: float64 [N, 2], in place of their own points.
    """
    x, y = points.T
    found: Points = np.zeros(len(x))
    found[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    found[rings.starts[1:] - 1] = 0
    return found


def trace(window: Labels, at: Points = MIDPOINTS) -> tuple[Index, Rings]:
    """All outlines in a window, outer ones counter-clockwise, holes clockwise; needs only numpy.

    Pixels that touch only at a corner are separate.

    Args:
        window: int32 [H, W], 0 for background.
        at: The point of each edge that an outline passes: `MIDPOINTS`, which rounds corners as
            marching squares do, or `CORNERS`, which follows the edges exactly.

    Returns:
        The label of each outline, int64 [R], and the outlines, with a point for each edge.
    """
    padded = np.pad(window, 1)
    width = padded.shape[1]
    flat = padded.ravel()
    steps = [row * width + column for row, column in _BEYOND]
    borders = [np.flatnonzero((flat > 0) & (np.roll(flat, -step) != flat)) for step in steps]
    after = _successors(flat, borders, steps)
    order, starts = _cycles(after)
    pixels = np.concatenate(borders)
    midpoints = np.repeat(at, [len(b) for b in borders], axis=0)
    points = np.stack([pixels % width, pixels // width], 1) - 1 + midpoints
    return flat[pixels[order[starts[:-1]]]].astype(np.int64), Rings(points[order], starts)


def _successors(flat: Labels, borders: list[Index], steps: list[int]) -> Index:
    """For each edge, numbered as in `borders`, the next one around the same object."""
    places = np.empty((4, len(flat)), np.int32)
    count = 0
    for way, pixels in enumerate(borders):
        places[way, pixels] = np.arange(count, count + len(pixels), dtype=np.int32)
        count += len(pixels)
    found = []
    for way, pixels in enumerate(borders):
        right, left = (way + 1) % 4, (way - 1) % 4
        ahead = pixels + steps[right]
        beyond = ahead + steps[way]
        inside: Flags = flat[ahead] == flat[pixels]
        convex: Flags = inside & (flat[beyond] == flat[pixels])
        straight = np.where(inside, places[way, ahead], places[right, pixels])
        found.append(np.where(convex, places[left, beyond], straight))
    return np.concatenate(found).astype(np.int64)


def _cycles(after: Index) -> tuple[Index, Index]:
    """The cycles of a permutation, each closed by its first element: order [N], starts [R + 1].

    By pointer doubling: each element looks one step ahead, then two, four, eight.
    """
    if not len(after):
        return after, np.zeros(1, np.int64)
    first, step = np.arange(len(after)), after  # first: the lowest element among those seen ahead
    while not np.array_equal(lower := np.minimum(first, first[step]), first):
        first, step = lower, step[step]
    end = first == np.arange(len(after))
    ahead = np.where(end, 0, 1)  # steps to the first element
    step = np.where(end, np.arange(len(after)), after)
    while ahead[step].any():
        ahead, step = ahead + ahead[step], step[step]
    order = np.lexsort((-ahead, first))
    begins = np.flatnonzero(np.append(True, first[order][1:] != first[order][:-1]))
    sizes = np.diff(np.append(begins, len(order)))
    closed = np.insert(order, begins + sizes, order[begins])
    return closed, np.append(0, np.cumsum(sizes + 1))
