"""Scores of dense heads: counts of each image, and what they give for a set of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.gland_metrics import gland_counts, pooled_gland_scores
from pathencoder.heads.dense.targets import IGNORED
from pathencoder.matching import match_points
from pathencoder.metrics import DetectionScores, instance_scores

RADIUS_UM = 3.0  # within which a point is found: 6 px at 20x, 12 px at 40x
Array = NDArray[np.generic]
_COUNTED = ("matched", "predicted", "true")


@dataclass(frozen=True)
class Scoring:
    """How the results of a kind of head are scored.

    Attributes:
        count: Truth, result and micrometres per pixel of an image to its counts.
        pool: Counts of images, and names of the classes, to scores by name.
        said: What the scores are, for the report.
    """

    count: Callable[[Array, Array, float], Any]
    pool: Callable[[Sequence[Any], Sequence[str]], dict[str, float]]
    said: str


@dataclass(frozen=True)
class PointCounts:
    """Points of one image.

    Attributes:
        hits: Matched pairs.
        found: Found points.
        true: True points.
        classes: The same of each class; empty where classes are not predicted.
    """

    hits: int
    found: int
    true: int
    classes: Mapping[str, DetectionScores] = field(default_factory=dict)


def point_counts(true: Array, found: Array, radius: float) -> PointCounts:
    """Count the points of an image.

    Args:
        true: x and y [N, 2 or more].
        found: The same.
        radius: Largest distance of a match, in their unit.

    Returns:
        The counts.
    """
    hits = len(match_points(true[:, :2], found[:, :2], radius))
    return PointCounts(hits, len(found), len(true))


def pooled_points(counts: Sequence[PointCounts]) -> dict[str, float]:
    """Precision, recall and F1 of counts that are summed over images."""
    hits, found, true = (sum(getattr(c, k) for c in counts) for k in ("hits", "found", "true"))
    return {
        "precision": hits / max(found, 1),
        "recall": hits / max(true, 1),
        "f1": 2 * hits / max(found + true, 1),
        **_pooled_cells([c.classes for c in counts]),
    }


def _pooled_cells(counts: Sequence[Mapping[str, DetectionScores]]) -> dict[str, float]:
    """F1 of each class, where classes are predicted; NaN for one that is nowhere true.

    A resample of patients without a class would otherwise count as an F1 of 0 in its interval.
    """
    names = dict.fromkeys(name for one in counts for name in one)
    each = {}
    for name in names:
        sums = [sum(getattr(c[name], k) for c in counts if name in c) for k in _COUNTED]
        f1 = DetectionScores.of(*sums).f1
        each[f"f1 of {name}"] = f1 if sums[2] else float("nan")
    if not each:
        return {}
    there = [value for value in each.values() if not np.isnan(value)]
    return {"mean class f1": float(np.mean(there)) if there else float("nan"), **each}


def pooled_glands(counts: Sequence[Any]) -> dict[str, float]:
    """The challenge's sums over images, and Dice of all pixels."""
    g = pooled_gland_scores(counts)
    return {"dice": g.dice, "object_dice": g.object_dice, "object_f1": g.f1}


def mean_instances(counts: Sequence[Any]) -> dict[str, float]:
    """The means over images."""
    names = ("dice", "aji", "pq", "f1")
    return {name: float(np.mean([getattr(c, name) for c in counts])) for name in names}


def _class_counts(true: Array, found: Array, _: float) -> NDArray[np.int64]:
    """Pixels of each class that are right, true and found [256, 3], where the class is known."""
    known = true != IGNORED
    t, f = true[known].astype(np.int64), found[known].astype(np.int64)
    columns = (t[t == f], t, f)
    return np.stack([np.bincount(c, minlength=IGNORED + 1)[: IGNORED + 1] for c in columns], 1)


def _pooled_classes(counts: Sequence[Any], classes: Sequence[str]) -> dict[str, float]:
    """Dice of each class over the pixels of all images; NaN for a class that nowhere occurs.

    A resample of patients without a class would otherwise count as a Dice of 0 in its interval.
    """
    hits, true, found = np.sum(counts, 0).T
    dice = np.where(true > 0, 2 * hits / np.maximum(true + found, 1), np.nan)
    each = {f"dice of {name}": float(dice[number]) for number, name in enumerate(classes)}
    there = [value for value in each.values() if not np.isnan(value)]
    return {"mean dice": float(np.mean(there)) if there else float("nan"), **each}


SCORING = {
    "glands": Scoring(
        lambda true, found, _: gland_counts(true, found),  # type: ignore[arg-type]
        lambda counts, _: pooled_glands(counts),
        "summed over all images, as the GlaS challenge does",
    ),
    "nuclei": Scoring(
        lambda true, found, _: instance_scores(true, found),  # type: ignore[arg-type]
        lambda counts, _: mean_instances(counts),
        "means over images; objects match at IoU > 0.5",
    ),
    "points": Scoring(
        lambda true, found, mpp: point_counts(true, found, RADIUS_UM / mpp),
        lambda counts, _: pooled_points(counts),
        f"counts summed over images; points match within {RADIUS_UM:g} um",
    ),
    "pixels": Scoring(_class_counts, _pooled_classes, "pixels summed over all images"),
}
