"""Masks to closed rings along pixel edges, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pathencoder.geojson import Ring
from pathencoder.slides.filters import Mask
from pathencoder.tracing import CORNERS, trace

_LEAST_TOUCHING = 8  # corners, closed by the first: two squares that share one have eight


def rings_of(mask: Mask) -> list[list[Ring]]:
    """The polygons of a mask, exactly along the edges of its pixels.

    Pixels that touch only at a corner are separate.

    Args:
        mask: bool [h, w].

    Returns:
        One list a polygon: its outer ring, then its holes; in pixels, 0 being the outer edge of
        the first pixel. No ring passes a point twice, and polygons are valid as GIS understands
        it.
    """
    _, traced = trace(mask.astype(np.int32), CORNERS)
    rings = [part for i in range(len(traced)) for part in _simple(_corners(traced[i]))]
    outer = [ring for ring in rings if _area(ring) > 0]
    polygons = [[ring] for ring in outer]
    boxes = np.array([[*ring.min(0), *ring.max(0)] for ring in outer]).reshape(-1, 4)
    areas = np.array([_area(ring) for ring in outer])
    for hole in (ring for ring in rings if _area(ring) < 0):
        low, high = hole.min(0), hole.max(0)
        around = (boxes[:, :2] <= low).all(1) & (boxes[:, 2:] >= high).all(1)
        inside = [i for i in np.flatnonzero(around) if _contains(outer[i], _tissue_beside(hole))]
        polygons[min(inside, key=lambda i: areas[i])].append(hole)
    return polygons


def mask_of(polygons: Iterable[Sequence[Ring]], shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie in one of the polygons (each by the even-odd rule).

    Args:
        polygons: Each a list of rings in pixels: the outer one and holes. An open ring is closed.
        shape: Of the mask: h, w.

    Returns:
        bool [h, w].
    """
    mask = np.zeros(shape, np.bool_)
    limits = np.array([shape[1], shape[0]])
    for rings in polygons:
        points = np.concatenate(rings)
        left, top = np.clip(np.floor(points.min(0)), 0, limits).astype(int).tolist()
        right, bottom = np.clip(np.ceil(points.max(0)), 0, limits).astype(int).tolist()
        shifted = [ring - (left, top) for ring in rings]
        mask[top:bottom, left:right] |= _even_odd(shifted, (bottom - top, right - left))
    return mask


def _even_odd(rings: Sequence[Ring], shape: tuple[int, int]) -> Mask:
    """Crossings of every row of centres with every edge; a pixel is inside after an odd number."""
    height, width = shape
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    low, high = (f(starts[:, 1], ends[:, 1]) for f in (np.minimum, np.maximum))
    first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    after = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
    edges = np.repeat(np.arange(len(starts)), after - first)
    rows = np.arange(len(edges)) - np.repeat(
        np.cumsum(after - first) - (after - first), after - first
    )
    rows += first[edges]
    dx, dy = (ends - starts)[edges].T
    x = starts[edges, 0] + (rows + 0.5 - starts[edges, 1]) / dy * dx
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    crossings = np.zeros((height, width + 1), np.int64)
    np.add.at(crossings, (rows, columns), 1)
    inside: Mask = crossings.cumsum(1)[:, :width] % 2 == 1
    return inside


def _corners(ring: Ring) -> Ring:
    """A ring without the points inside straight lines."""
    steps = np.diff(ring, axis=0)
    turns = (steps != np.roll(steps, 1, axis=0)).any(1)
    corners = ring[:-1][turns]
    return np.concatenate([corners, corners[:1]])


def _simple(ring: Ring) -> list[Ring]:
    """A ring cut where it comes back to a corner: two holes that touch there are two rings.

    Rings turn at such a corner each time, so that none passes it between its corners.
    """
    if len(ring) <= _LEAST_TOUCHING:
        return [ring]
    found: list[Ring] = []
    path: list[tuple[float, float]] = []
    place: dict[tuple[float, float], int] = {}
    for x, y in ring.tolist():
        if (begin := place.get((x, y))) is not None:
            found.append(np.array([*path[begin:], (x, y)]))
            for corner in path[begin:]:
                del place[corner]
            del path[begin:]
        place[x, y] = len(path)
        path.append((x, y))
    return found


def _area(ring: Ring) -> float:
    """Signed area; with y pointing down, outer rings are positive."""
    x, y = ring.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def _tissue_beside(hole: Ring) -> tuple[float, float]:
    """The centre of a pixel of tissue along a hole's first edge."""
    start, end = hole[0], hole[1]
    along = np.sign(end - start)
    x, y = start + along / 2 + np.array([-along[1], along[0]]) / 2
    return float(x), float(y)


def _contains(ring: Ring, point: tuple[float, float]) -> bool:
    x, y = ring.T
    crosses = (y[:-1] > point[1]) != (y[1:] > point[1])
    at = (
        x[:-1][crosses]
        + (point[1] - y[:-1][crosses]) / (y[1:] - y[:-1])[crosses] * (x[1:] - x[:-1])[crosses]
    )
    return bool((at > point[0]).sum() % 2)
