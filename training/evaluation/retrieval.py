"""Retrieval: whether the tiles nearest to a tile are of its class, among other groups' tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathencoder.metrics import nearest_neighbours
from training.evaluation.outcomes import Floats, Ints

FIRST = 5  # of which the most frequent class counts


def average_precisions(x: NDArray[np.float32], y: Ints, groups: NDArray[np.str_]) -> Floats:
    """Average precision of each tile as a query among the tiles of other groups, by cosine.

    Args:
        x: Embeddings [n, D].
        y: Class numbers [n].
        groups: Groups [n]: tiles of the query's own group are not searched.

    Returns:
        [n]; NaN where no tile of another group has the query's class.
    """
    order, cosine = nearest_neighbours(x, x, len(x), groups=(groups, groups))
    right = (y[order] == y[:, None]) & (cosine != -np.inf)
    found = right.cumsum(1)
    precision = np.where(right, found / np.arange(1, len(x) + 1), 0.0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: Floats = precision / found[:, -1]
    return values


def right_at_first(x: NDArray[np.float32], y: Ints, groups: NDArray[np.str_]) -> Floats:
    """1 for each query whose class is the most frequent of the first `FIRST` tiles, else 0.

    Args:
        x: Embeddings [n, D].
        y: Class numbers [n].
        groups: Groups [n]: tiles of the query's own group are not searched.

    Returns:
        [n]; of equally frequent classes that of the nearest tile counts. NaN where there is no tile
        of another group.
    """
    order, cosine = nearest_neighbours(x, x, FIRST, groups=(groups, groups))
    found = np.full(len(y), np.nan)
    for i, (near, c) in enumerate(zip(order, cosine, strict=True)):
        classes = y[near[c != -np.inf]]
        if len(classes):
            counts = np.bincount(classes)
            best = next(c for c in classes if counts[c] == counts.max())
            found[i] = float(best == y[i])
    return found


def mean_over_classes(values: Floats, y: Ints) -> float:
    """The mean of the classes' means; queries without a value are left out."""
    kept = np.isfinite(values)
    means = [values[kept & (y == c)].mean() for c in np.unique(y[kept])]
    return float(np.mean(means)) if means else float("nan")
