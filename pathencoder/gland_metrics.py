"""The scores of the GlaS challenge for glands and other large objects.

Sirinukunwattana et al., "Gland segmentation in colon histology images: The GlaS challenge contest",
Medical Image Analysis, 2017. Counts and areas are pooled over all images of a set, as the
challenge sums them; means over images give other figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathencoder.errors import ConfigError
from pathencoder.metrics import overlaps

Labels = NDArray[np.integer]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GlandScores:
    """Scores of a set of images.

    Attributes:
        f1: Of objects. A predicted object is a hit where it covers at least half of the true object
            that it overlaps most.
        object_dice: Dice of every true object with the prediction that overlaps it most, weighted
            by area, and the same from the side of the predictions; their mean.
        object_hausdorff: The same sums of the Hausdorff distance, in pixels; None where it was not
            asked for, or one side has no object.
        dice: Of the pixels of all images together.
    """

    f1: float
    object_dice: float
    object_hausdorff: float | None
    dice: float


@dataclass(frozen=True)
class _Side:
    """Area, Dice and Hausdorff distance of each object of one side, of one image."""

    area: Floats
    dice: Floats
    distance: Floats


@dataclass(frozen=True)
class GlandCounts:
    """What is summed of one image."""

    hits: int
    true: int
    predicted: int
    found: int
    both: int
    sides: tuple[_Side, _Side]
    hausdorff: bool


def gland_scores(pairs: Iterable[tuple[Labels, Labels]], *, hausdorff: bool = False) -> GlandScores:
    """Score predicted objects against true ones.

    Args:
        pairs: True and predicted label maps of each image, integers [H, W], 0 is background.
        hausdorff: Also compute the Hausdorff distance, which takes most of the time.

    Returns:
        The scores of all images together. Where neither side has an object, they are 1.

    Raises:
        ConfigError: Two maps of an image differ in shape, or there is no image.
    """
    return pooled_gland_scores([gland_counts(*pair, hausdorff=hausdorff) for pair in pairs])


def pooled_gland_scores(counts: Sequence[GlandCounts]) -> GlandScores:
    """The scores of images that `gland_counts` counted; errors as in `gland_scores`."""
    if not counts:
        raise ConfigError("there is no image to score: give at least one pair of label maps")
    hits, found = sum(c.hits for c in counts), sum(c.found for c in counts)
    true = sum(len(c.sides[0].area) for c in counts)
    predicted = sum(len(c.sides[1].area) for c in counts)
    f1 = 2 * hits / (2 * hits + (predicted - hits) + (true - found)) if true + predicted else 1.0
    pixels = sum(c.true + c.predicted for c in counts)
    dice = 2 * sum(c.both for c in counts) / pixels if pixels else 1.0
    halves = [_pooled([c.sides[k] for c in counts]) for k in (0, 1)]
    object_dice = 1.0 if not true + predicted else sum(h[0] for h in halves) / 2
    measured = all(c.hausdorff for c in counts) and true and predicted
    far = sum(h[1] for h in halves) / 2 if measured else None
    return GlandScores(f1, object_dice, far, dice)


def _pooled(sides: list[_Side]) -> tuple[float, float]:
    area = np.concatenate([s.area for s in sides])
    if not len(area):
        return 0.0, 0.0
    share = area / area.sum()
    dice, far = (np.concatenate([getattr(s, n) for s in sides]) for n in ("dice", "distance"))
    return float(share @ dice), float(share @ far)


def gland_counts(truth: Labels, found: Labels, *, hausdorff: bool = False) -> GlandCounts:
    """What is summed of one image; arguments and errors as in `gland_scores`."""
    truth, found = _numbered(truth), _numbered(found)
    shared = overlaps(truth, found)
    true_area, found_area = shared.sum(1)[1:], shared.sum(0)[1:]
    both = shared[1:, 1:]
    hit = np.zeros(both.shape, bool)
    if both.size:
        best = both.argmax(0)
        columns = np.arange(both.shape[1])
        hit[best, columns] = (both[best, columns] > 0) & (
            2 * both[best, columns] >= true_area[best]
        )
    sides = (
        _side(truth, found, both, true_area, found_area, hausdorff=hausdorff),
        _side(found, truth, both.T, found_area, true_area, hausdorff=hausdorff),
    )
    return GlandCounts(
        int(hit.any(0).sum()),
        int(true_area.sum()),
        int(found_area.sum()),
        int(hit.any(1).sum()),
        int(both.sum()),
        sides,
        hausdorff,
    )


def _side(
    mine: Labels,
    others: Labels,
    both: NDArray[np.int64],
    area: NDArray[np.int64],
    other_area: NDArray[np.int64],
    *,
    hausdorff: bool,
) -> _Side:
    """Dice and distance of each object of `mine` to the other that it overlaps most."""
    dice, distance = np.zeros(len(area)), np.zeros(len(area))
    if not len(area) or not len(other_area):
        return _Side(area.astype(float), dice, distance)
    best = both.argmax(1)
    shared = both[np.arange(len(area)), best]
    dice = 2 * shared / (area + other_area[best])
    if hausdorff:
        for i in range(len(area)):
            candidates = [int(best[i])] if shared[i] else range(len(other_area))
            distance[i] = min(_hausdorff(mine == i + 1, others == j + 1) for j in candidates)
    return _Side(area.astype(float), dice, distance)


def _hausdorff(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Largest distance of a point of one to the nearest of the other, in pixels."""
    rows, columns = (np.flatnonzero((a | b).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    a, b = a[box], b[box]
    to_b, to_a = ndimage.distance_transform_edt(~b), ndimage.distance_transform_edt(~a)
    return float(max(to_b[a].max(), to_a[b].max()))


def _numbered(labels: Labels) -> Labels:
    """Labels numbered from 1 without gaps."""
    index = np.unique(np.append(0, labels.ravel()), return_inverse=True)[1][1:]
    return index.reshape(labels.shape)
