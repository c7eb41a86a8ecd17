"""From maps of a dense head to objects: glands, nuclei, points, and classes of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathencoder.nuclei.instances import tools

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


def glands(maps: Floats, *, smallest: int, inside: float = 0.5, contour: float = 0.4) -> Labels:
    """Objects are the components of inside without contour, grown back to the inside.

    Args:
        maps: Probabilities [2, H, W] of inside and contour.
        smallest: Area of the smallest object.
        inside: Probability from which a pixel is inside.
        contour: Probability from which a pixel is contour.

    Returns:
        [H, W], numbered from 1.
    """
    ndimage, _, segmentation = tools()
    whole = ndimage.binary_fill_holes(maps[0] > inside)
    cores, _ = ndimage.label(whole & (maps[1] <= contour))
    cores = _without_small(cores, max(1, smallest // 4))
    seeds = _without_small(cores, 1)
    grown = segmentation.watershed(maps[1] - maps[0], seeds, mask=whole)
    return _filled(_without_small(grown, smallest))


def nuclei(
    maps: Floats,
    *,
    smallest: int,
    inside: float = 0.5,
    smoothing: float = 1.0,
    apart: int = 4,
    rise: float = 0.1,
) -> Labels:
    """Objects by a watershed from the peaks of the depth.

    A large nucleus has several peaks that hardly differ. Two parts are one object where the depth
    falls by less than `rise` on the way from the lower peak to the higher one (the dynamics of a
    peak, Grimaud 1992).

    Args:
        maps: Probabilities of inside, and depth, [2, H, W].
        smallest: Area of the smallest object.
        inside: Probability from which a pixel is inside.
        smoothing: Sigma of the Gaussian over the depth, in pixels.
        apart: Smallest distance between two peaks.
        rise: Smallest rise of a peak above the way to a higher one; the depth is 0..1 in nuclei
            of every size.

    Returns:
        [H, W], numbered from 1.
    """
    ndimage, feature, segmentation = tools()
    mask = ndimage.binary_fill_holes(maps[0] > inside)
    depth = ndimage.gaussian_filter(maps[1], smoothing)
    parts, _ = ndimage.label(mask)
    peaks = feature.peak_local_max(depth, min_distance=apart, labels=parts, exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    basins = segmentation.watershed(-depth, seeds, mask=mask)
    heights = np.concatenate([[0], depth[tuple(peaks.T)]]).astype(np.float32)
    return _without_small(_joined(basins, depth, heights, rise), smallest)


def points(
    found: Floats, *, threshold: float, apart: float, smoothing: float
) -> NDArray[np.float64]:
    """Peaks of a map, refined to a part of a pixel.

    Args:
        found: Heights [h, w].
        threshold: Lowest peak, of the smoothed map.
        apart: Smallest distance between two peaks, in pixels of the map.
        smoothing: Standard deviation of the Gaussian that smooths the map, in its pixels.

    Returns:
        x, y and height [N, 3]; the centre of the first pixel is at .5.
    """
    ndimage, feature, _ = tools()
    smooth = ndimage.gaussian_filter(found, smoothing)
    at = feature.peak_local_max(
        smooth, min_distance=max(1, round(apart)), threshold_abs=threshold, exclude_border=False
    )
    padded = np.pad(smooth, 1, mode="edge")
    y, x = at.T + 1
    shifts = [_vertex(padded, y, x, *step) for step in ((0, 1), (1, 0))]
    return np.stack(
        [at[:, 1] + 0.5 + shifts[0], at[:, 0] + 0.5 + shifts[1], smooth[tuple(at.T)]], 1
    )


def classes(maps: Floats) -> Labels:
    """The most probable class of every pixel.

    Args:
        maps: Probabilities [classes, H, W].

    Returns:
        Numbers of classes [H, W], from 0.
    """
    found: Labels = maps.argmax(0).astype(np.int32)
    return found


def _joined(basins: Labels, depth: Floats, heights: Floats, rise: float) -> Labels:
    """Join basins whose peak rises little above the highest way to a higher one.

    Args:
        basins: [H, W], numbered from 1.
        depth: [H, W].
        heights: Of the peak of each basin, by number.
        rise: Basins that rise less are joined.
    """
    pairs, ways = _ways(basins, depth)
    root = list(range(len(heights)))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for i in np.argsort(-ways, kind="stable"):
        one, other = sorted((find(pairs[i, 0]), find(pairs[i, 1])), key=lambda n: heights[n])
        if one != other and heights[one] - ways[i] < rise:
            root[one] = other
    joined: Labels = np.array([find(n) for n in range(len(root))], np.int32)[basins]
    return joined


def _ways(basins: Labels, depth: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Pairs of basins that touch, int [N, 2], and the highest way between the two, float [N]."""
    count = int(basins.max(initial=0)) + 1
    keys, heights = [], []
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:-1, :-1], np.s_[1:, 1:]),
        (np.s_[:-1, 1:], np.s_[1:, :-1]),
    ):
        a, b = basins[here], basins[there]
        at = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a[at], b[at]).astype(np.int64), np.maximum(a[at], b[at])
        keys.append(low * count + high)
        heights.append(np.minimum(depth[here][at], depth[there][at]))
    pairs, index = np.unique(np.concatenate(keys), return_inverse=True)
    ways = np.full(len(pairs), -np.inf, np.float32)
    np.maximum.at(ways, index.ravel(), np.concatenate(heights))
    return np.stack(np.divmod(pairs, count), axis=1), ways


def _vertex(values: Floats, y: NDArray[np.intp], x: NDArray[np.intp], dy: int, dx: int) -> Floats:
    """Where the parabola through a peak and its two neighbours has its top, -.5 to .5 px."""
    before, here, after = values[y - dy, x - dx], values[y, x], values[y + dy, x + dx]
    bend = 2 * here - before - after
    top: Floats = np.clip((after - before) / np.maximum(2 * bend, 1e-6), -0.5, 0.5)
    return top


def _without_small(labels: NDArray[np.integer], smallest: int) -> Labels:
    """Objects of at least `smallest` pixels, numbered from 1."""
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    found: Labels = (np.cumsum(keep) * keep)[labels].astype(np.int32)
    return found


def _filled(labels: Labels) -> Labels:
    """Holes of each object belong to it."""
    ndimage, *_ = tools()
    result = labels.copy()
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            hole = ndimage.binary_fill_holes(labels[box] == number) & (labels[box] == 0)
            result[box][hole] = number
    return result
