"""Principal components, similarity and clusters of rows of features.

Rows are scaled to length one and centred on their mean before anything is computed: the similarity
of two rows is the cosine of the two after that. The cosine of rows as they are is close to one for
all tiles of many encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
_BLOCK = 8192  # rows taken at a time
_STARTS, _ROUNDS = 4, 50  # of k-means; rounds at most


@dataclass(frozen=True)
class Components:
    """The principal components of rows.

    Attributes:
        mean: Of the rows, each scaled to length one: float32 [D].
        axes: Directions of the greatest variance, in falling order: float32 [D, K].
        shares: The share of the variance along each axis: float64 [K].
    """

    mean: Rows
    axes: Rows
    shares: NDArray[np.float64]

    def centred(self, rows: Rows) -> Rows:
        """Rows of length one, less the mean: float32 [N, D]."""
        return unit(rows) - self.mean

    def scores(self, rows: Rows) -> Rows:
        """Coordinates of rows along the axes: float32 [N, K]."""
        found = np.empty((len(rows), self.axes.shape[1]), np.float32)
        for start in range(0, len(rows), _BLOCK):
            found[start : start + _BLOCK] = self.centred(rows[start : start + _BLOCK]) @ self.axes
        return found


def unit(rows: Rows) -> Rows:
    """Rows scaled to length one; a row of zeros stays: float32 [N, D]."""
    scaled: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return scaled


def find_components(parts: Sequence[Rows], count: int) -> Components:
    """The principal components of the rows of one or several slides together.

    Signs are fixed, so that the same rows give the same components.

    Args:
        parts: float32 [N, D] each, at least one.
        count: How many components at most.
    """
    width = parts[0].shape[1]
    total, sums = 0, np.zeros(width)
    products = np.zeros((width, width))
    for rows in parts:
        for start in range(0, len(rows), _BLOCK):
            block = unit(rows[start : start + _BLOCK]).astype(np.float64)
            total += len(block)
            sums += block.sum(axis=0)
            products += block.T @ block
    mean = sums / max(total, 1)
    variances, axes = np.linalg.eigh(products - total * np.outer(mean, mean))
    kept = max(1, min(count, width, total - 1))
    main = axes[:, ::-1][:, :kept]
    main = main * np.where(main.sum(axis=0) < -1e-12, -1, 1)
    shares = np.clip(variances[::-1][:kept], 0, None) / max(float(variances.sum()), 1e-12)
    return Components(mean.astype(np.float32), main.astype(np.float32), shares)


def similarity(centred: Rows, chosen: int) -> Rows:
    """Cosine of every row to one of them: float32 [N].

    Args:
        centred: float32 [N, D], as `Components.centred` returns them.
        chosen: The row that others are compared with.
    """
    rows = unit(centred)
    cosine: Rows = rows @ rows[chosen]
    return cosine


def clusters(scores: Rows, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Group rows by k-means (k-means++ starts, Arthur and Vassilvitskii, 2007).

    Args:
        scores: float32 [N, K]; directions count, not lengths.
        count: How many clusters at most.
        seed: Of the starts, of which the best is taken.

    Returns:
        The cluster of each row, int64 [N]; 0 is the largest.
    """
    rows, random = unit(scores), np.random.default_rng(seed)
    if not len(rows):
        return np.zeros(0, np.int64)
    tried = [_settled(rows, _first_centres(rows, count, random)) for _ in range(_STARTS)]
    found, _ = min(tried, key=lambda each: each[1])
    order = np.argsort(-np.bincount(found), kind="stable")
    return np.asarray(np.argsort(order)[found])


def _first_centres(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    """Up to `count` rows, each chosen with the square of its distance from those before."""
    centres = rows[random.integers(len(rows), size=1)]
    away = _distances(rows, centres)[:, 0]
    while len(centres) < count and away.sum() > 1e-6 * len(rows):  # else there are no other rows
        new = rows[[random.choice(len(rows), p=away / away.sum())]]
        centres = np.vstack([centres, new])
        away = np.minimum(away, _distances(rows, new)[:, 0])
    return centres


def _settled(rows: Rows, centres: Rows) -> tuple[NDArray[np.int64], float]:
    """The cluster of each row when the centres no longer move, and the sum of squared distances."""
    found = np.full(len(rows), -1)
    for _ in range(_ROUNDS):
        away = _distances(rows, centres)
        nearest = away.argmin(axis=1)
        if np.array_equal(nearest, found):
            break
        found = nearest
        for number in np.unique(found):
            centres[number] = rows[found == number].mean(axis=0)
    return found, float(away.min(axis=1).sum())


def _distances(rows: Rows, centres: Rows) -> NDArray[np.float64]:
    """Squared distances between unit rows and centres: float64 [N, len(centres)]."""
    squares = 1 + np.square(centres).sum(axis=1) - 2 * (rows @ centres.T)
    return np.asarray(np.clip(squares, 0, None), np.float64)
