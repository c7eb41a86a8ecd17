"""Many closed polygons at once: areas, simplification, and tests for self-intersection."""

from __future__ import annotations

import numpy as np

from pathencoder.tracing import Flags, Index, Points, Rings, crosses

_PAIRS = 500_000  # pairs of edges compared at a time


def corners(rings: Rings, tolerance: float) -> Flags:
    """The points of each ring that simplification keeps (Douglas and Peucker, 1973).

    Args:
        rings: At least one ring, each of at least three different points.
        tolerance: Largest distance of a removed point from the new outline.

    Returns:
        bool [N]. A ring may be left with two points, or intersect itself (see `is_simple`).
    """
    kept = _anchors(rings)
    waiting = np.flatnonzero(~kept)
    while len(waiting):
        edge, away = _distances(rings.points, kept, waiting)
        first = np.flatnonzero(np.append(True, edge[1:] != edge[:-1]))
        largest = np.repeat(np.maximum.reduceat(away, first), np.diff(np.append(first, len(edge))))
        farthest = np.flatnonzero((away == largest) & (largest > tolerance))
        _, one_each = np.unique(edge[farthest], return_index=True)
        kept[waiting[farthest[one_each]]] = True
        waiting = waiting[(largest > tolerance) & ~kept[waiting]]
    return kept


def area_between(rings: Rings, kept: Flags) -> Points:
    """Approximate area between each ring and the same ring with only the points `kept`: [R]."""
    removed = np.flatnonzero(~kept)
    _, away = _distances(rings.points, kept, removed)
    lengths = np.hypot(*np.diff(rings.points, axis=0).T)
    strips = np.zeros(len(kept))
    strips[removed] = away * (lengths[removed - 1] + lengths[removed]) / 2
    return np.asarray(np.add.reduceat(strips, rings.starts[:-1]))


def is_simple(rings: Rings) -> Flags:
    """Whether each ring is counter-clockwise, has three points and does not touch itself: [R].

    Rings that are star-shaped around the mean of their points are simple; the edges of all others
    are compared in pairs.
    """
    simple = _is_star_shaped(rings)
    unclear = np.flatnonzero(~simple & (rings.sizes > 3) & (rings.areas() > 0))
    unclear = unclear[np.argsort(rings.sizes[unclear])]
    while len(unclear):
        most = int(rings.sizes[unclear[-1]])
        few = max(1, _PAIRS // most**2)
        unclear, last = unclear[:-few], unclear[-few:]
        simple[last] = ~_touch_themselves(rings.chosen(last), most - 1)
    return simple


def _anchors(rings: Rings) -> Flags:
    """The first and the last point of each ring and the one farthest from them."""
    ring = np.repeat(np.arange(len(rings)), rings.sizes)
    away = np.square(rings.points - rings.points[rings.starts[ring]]).sum(1)
    farthest = np.flatnonzero(away == np.maximum.reduceat(away, rings.starts[:-1])[ring])
    _, one_each = np.unique(ring[farthest], return_index=True)
    kept = np.zeros(len(ring), bool)
    kept[rings.starts[:-1]] = kept[rings.starts[1:] - 1] = kept[farthest[one_each]] = True
    return kept


def _distances(points: Points, kept: Flags, others: Index) -> tuple[Index, Points]:
    """The edge between kept points that replaces each of the `others`, and its distance."""
    ends = np.flatnonzero(kept)
    edge = np.searchsorted(ends, others) - 1
    start, point = points[ends[edge]], points[others]
    along = points[ends[edge + 1]] - start
    length = np.maximum(np.square(along).sum(1), 1e-12)
    share = np.clip(((point - start) * along).sum(1) / length, 0, 1)
    return edge, np.hypot(*(point - start - share[:, None] * along).T)


def _is_star_shaped(rings: Rings) -> Flags:
    """Whether a ring runs counter-clockwise around the mean of its points exactly once."""
    ring = np.repeat(np.arange(len(rings)), rings.sizes)
    first, last = rings.starts[:-1], rings.starts[1:] - 1
    sums = np.add.reduceat(rings.points, first) - rings.points[last]
    middle = sums / (rings.sizes - 1)[:, None]
    points = rings.points - middle[ring]
    turns = crosses(rings, points)
    turns[last] = np.inf
    forward = np.minimum.reduceat(turns, first) > 0  # never back
    y = points[:, 1]
    upward = np.append((y[:-1] < 0) & (y[1:] >= 0), False)
    upward[last] = False
    around = np.add.reduceat(upward, first, dtype=np.int64) == 1
    return np.asarray(forward & around & (rings.sizes > 3))


def _touch_themselves(rings: Rings, most: int) -> Flags:
    """Whether edges of a ring of at most `most` edges touch that are not neighbours: [R]."""
    number = rings.sizes[:, None] - 1
    indices = np.minimum(np.arange(most + 1), number) + rings.starts[:-1, None]
    points = rings.points[indices]
    a, b = points[:, :-1], points[:, 1:]
    apart = np.abs(np.arange(most)[:, None] - np.arange(most))
    real = np.arange(most) < number
    pairs = (apart > 1) & (apart < number[..., None] - 1) & real[:, :, None] & real[:, None]
    low, high = np.minimum(a, b), np.maximum(a, b)
    for axis in (0, 1):
        pairs &= low[:, :, None, axis] <= high[:, None, :, axis]
    ring, one, other = np.nonzero(pairs & pairs.transpose(0, 2, 1))
    touching = _touch(a[ring, one], b[ring, one], a[ring, other], b[ring, other])
    after = np.where((np.arange(most) + 1 == number)[..., None], points[:, 1:2], np.roll(b, -1, 1))
    straight = _side(a, b, after) == 0
    back = real & straight & (((b - a) * (after - b)).sum(-1) < 0)
    found: Flags = back.any(1)
    found[ring[touching]] = True
    return found


def _touch(a: Points, b: Points, c: Points, d: Points) -> Flags:
    """Whether segments a-b and c-d, whose boxes overlap, have a point in common."""
    separated = _side(a, b, c) * _side(a, b, d) <= 0
    return np.asarray(separated & (_side(c, d, a) * _side(c, d, b) <= 0))


def _side(a: Points, b: Points, c: Points) -> Points:
    """-1, 0 or 1: the side of the line a-b on which c lies. Exact for halves of pixels."""
    one, other = b - a, c - a
    return np.sign(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])
