"""Which tiles of a slide are packed: spread over its kinds of tissue, and over its area.

1. Of every tile the mean optical density of the three channels and the deviation of their mean, on
   the small picture in which the tissue was found.
2. k-means (k-means++, ten rounds) puts the tiles into at most eight clusters of like colour.
3. A cluster of n tiles gets a share in proportion to the root of n: rare tissue is seen more often
   than its area, and no cluster is left out.
4. Within a cluster, tiles are taken at equal steps along a Z curve over their positions, which
   spreads them over the slide.

All of it is done with integers, seeded by the name of the slide: the same slide gives the same
tiles on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.slides.tissue import TissueMask

CLUSTERS = 8
_ROUNDS = 10
_STEPS = 1000  # of one unit of optical density
_PIXELS = 6  # of a tile's side, in the picture that is looked at
_BLOCK = 4096  # tiles whose distances are found at a time

Whole = NDArray[np.int64]


def choose(
    tissue: TissueMask, corners: Whole, side: float, count: int, name: str
) -> tuple[Whole, NDArray[np.int8]]:
    """Choose tiles of a slide.

    Args:
        tissue: Of the slide, with its picture.
        corners: Of all tiles: x and y in level-0 pixels, [N, 2].
        side: Of a tile, in level-0 pixels.
        count: How many are wanted; 0: all.
        name: Of the slide: the seed.

    Returns:
        The chosen tiles in ascending order, and the cluster of each of them.
    """
    if not len(corners):
        return np.zeros(0, np.int64), np.zeros(0, np.int8)
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    rng = np.random.default_rng(seed)
    cluster = clusters_of(colours(tissue, corners, side), CLUSTERS, rng)
    if not count or count >= len(corners):
        return np.arange(len(corners)), cluster.astype(np.int8)
    sizes = np.bincount(cluster, minlength=CLUSTERS)
    curve = z_order(corners)
    chosen = []
    for number, share in enumerate(shares(sizes, count).tolist()):
        members = np.flatnonzero(cluster == number)
        members = members[np.argsort(curve[members], kind="stable")]
        # at equal steps, from a random place within the first step
        start = int(rng.integers(len(members))) if len(members) else 0
        chosen.append(members[(np.arange(share) * len(members) + start) // max(share, 1)])
    found = np.sort(np.concatenate(chosen))
    return found, cluster[found].astype(np.int8)


def colours(tissue: TissueMask, corners: Whole, side: float) -> Whole:
    """Optical density of every tile: R, G, B and the deviation of their mean, int64 [N, 4]."""
    picture = _reduced(tissue, side)
    table = np.rint(-np.log10((np.arange(256) + 1) / 256) * _STEPS).astype(np.int64)
    density = table[picture]
    mean = density.sum(2) // 3
    height, width = picture.shape[:2]
    # level-0 pixels per pixel of the picture: it shows the area of the mask
    wide = tissue.scale[0] * tissue.mask.shape[1] / width
    high = tissue.scale[1] * tissue.mask.shape[0] / height
    left, right = _edges(corners[:, 0] - tissue.origin[0], side, wide, width)
    top, bottom = _edges(corners[:, 1] - tissue.origin[1], side, high, height)
    area = (right - left) * (bottom - top)

    def means(values: Whole) -> Whole:
        sums = np.zeros((height + 1, width + 1), np.int64)
        sums[1:, 1:] = values.cumsum(0).cumsum(1)
        whole = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        found: Whole = whole // area
        return found

    variance = np.maximum(means(mean**2) - means(mean) ** 2, 0)
    spread = np.sqrt(variance.astype(np.float64)).astype(np.int64)
    return np.stack([*(means(density[..., channel]) for channel in range(3)), spread], axis=1)


def _reduced(tissue: TissueMask, side: float) -> NDArray[np.uint8]:
    """The picture with some pixels a tile, averaged."""
    picture = tissue.picture
    assert picture is not None
    wide = tissue.scale[0] * tissue.mask.shape[1] / picture.shape[1]
    factor = max(1, int(side / wide / _PIXELS))
    return np.asarray(Image.fromarray(picture).reduce(factor))


def _edges(start: Whole, side: float, step: float, most: int) -> tuple[Whole, Whole]:
    """The first pixel of each tile in the picture, and the one after its last."""
    first = np.clip(np.floor(start / step).astype(np.int64), 0, most - 1)
    last = np.clip(np.ceil((start + side) / step).astype(np.int64), first + 1, most)
    return first, last


def clusters_of(points: Whole, count: int, rng: np.random.Generator) -> Whole:
    """k-means on whole numbers.

    Args:
        points: int64 [N, D].
        count: The most clusters.
        rng: For the first centres (k-means++, Arthur and Vassilvitskii 2007).

    Returns:
        The cluster of each point, int64 [N].
    """
    centres = points[[int(rng.integers(len(points)))]]
    nearest = _distances(points, centres)[:, 0]
    while len(centres) < count and nearest.any():
        ends = np.cumsum(nearest)
        new = points[[int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))]]
        centres = np.concatenate([centres, new])
        nearest = np.minimum(nearest, _distances(points, new)[:, 0])
    cluster = _nearest(points, centres)
    for _ in range(_ROUNDS):
        sizes = np.bincount(cluster, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points)
        filled = sizes > 0
        centres[filled] = sums[filled] // sizes[filled, None]
        before, cluster = cluster, _nearest(points, centres)
        if (before == cluster).all():
            break
    return cluster


def _distances(points: Whole, centres: Whole) -> Whole:
    squares: Whole = ((points[:, None] - centres[None]) ** 2).sum(2)
    return squares


def _nearest(points: Whole, centres: Whole) -> Whole:
    parts = [
        _distances(points[i : i + _BLOCK], centres).argmin(1) for i in range(0, len(points), _BLOCK)
    ]
    return np.concatenate(parts)


def shares(sizes: Whole, count: int) -> Whole:
    """How many tiles each cluster gives: in proportion to the root of its size, at most its size.

    Args:
        sizes: Of the clusters.
        count: In all; no more than there are.
    """
    given = np.zeros_like(sizes)
    while (left := count - int(given.sum())) > 0:
        weights = np.where(given < sizes, np.sqrt(sizes.astype(np.float64)), 0.0)
        more = np.floor(left * weights / weights.sum()).astype(np.int64)
        if not more.any():  # fewer than there are clusters: one each, the largest first
            order = np.lexsort((np.arange(len(sizes)), -weights))[:left]
            more[order] = weights[order] > 0
        given = np.minimum(given + more, sizes)
    return given


def z_order(corners: Whole) -> Whole:
    """The place of each corner on a Z curve over the slide (Morton 1966), int64 [N]."""
    ranks = [np.unique(corners[:, axis], return_inverse=True)[1] for axis in (0, 1)]
    code = np.zeros(len(corners), np.int64)
    for bit in range(20):
        for axis in (0, 1):
            code |= ((ranks[axis] >> bit) & 1) << (2 * bit + axis)
    return code
