"""Points matched one to one: true and found cells.

It uses scipy, which comes with scikit-image (the `nuclei` extra).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathencoder.errors import MissingExtra


def match_points(truth: ArrayLike, predicted: ArrayLike, radius: float) -> NDArray[np.int64]:
    """Match points one to one: as many as possible within `radius`, of least total distance.

    Args:
        truth: True points [M, 2].
        predicted: Predicted points [N, 2].
        radius: Largest distance of a match in pixels.

    Returns:
        Pairs (index in truth, index in predicted), int64 [K, 2].

    Raises:
        MissingExtra: scipy is not installed.
    """
    t, p = as_points(truth), as_points(predicted)
    if not len(t) or not len(p):
        return np.zeros((0, 2), np.int64)
    try:
        from scipy.optimize import linear_sum_assignment
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
    except ImportError as error:
        raise MissingExtra.of("nuclei", "matching points one to one") from error
    near = _near(t, p, radius)
    # points that no chain of near ones connects are matched apart: memory follows the near pairs
    size = len(t) + len(p)
    graph = coo_matrix((np.ones(len(near)), (near["i"], near["j"] + len(t))), (size, size))
    part = connected_components(graph, directed=False)[1][near["i"]]
    alone = np.bincount(part)[part] == 1
    found = [np.stack([near["i"][alone], near["j"][alone]], 1)]
    near, part = near[~alone], part[~alone]
    order = np.argsort(part, kind="stable")
    for pairs in np.split(near[order], np.flatnonzero(np.diff(part[order])) + 1):
        rows, row = np.unique(pairs["i"], return_inverse=True)
        columns, column = np.unique(pairs["j"], return_inverse=True)
        cost = np.full((len(rows), len(columns)), 1e6)
        cost[row, column] = pairs["v"]
        i, j = linear_sum_assignment(cost)
        kept = cost[i, j] < 1e6
        found.append(np.stack([rows[i[kept]], columns[j[kept]]], 1))
    matched = np.concatenate(found).astype(np.int64)
    return matched[matched[:, 0].argsort()]


def matches_of(
    truth: ArrayLike, predicted: ArrayLike, kept: NDArray[np.bool_], radius: float
) -> NDArray[np.float64]:
    """How many pairs `match_points` gives for each of several parts of the predicted points.

    Args:
        truth: True points [M, 2].
        predicted: Predicted points [N, 2].
        kept: Which of them count, a part a row [K, N].
        radius: Largest distance of a match in pixels.

    Returns:
        Numbers [K].

    Raises:
        MissingExtra: scipy is not installed.
    """
    t, p = as_points(truth), as_points(predicted)
    if not len(t) or not len(p):
        return np.zeros(len(kept))
    try:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_bipartite_matching
    except ImportError as error:
        raise MissingExtra.of("nuclei", "matching points one to one") from error
    near = _near(t, p, radius)
    graph = csr_matrix((np.ones(len(near), bool), (near["i"], near["j"])), (len(t), len(p)))
    partners = [maximum_bipartite_matching(graph[:, part], perm_type="column") for part in kept]
    return np.array([np.count_nonzero(partner >= 0) for partner in partners], float)


def _near(t: NDArray[np.float64], p: NDArray[np.float64], radius: float) -> NDArray[np.void]:
    """Pairs within the radius: fields "i" and "j", their indices, and "v", their distance."""
    from scipy.spatial import cKDTree

    found: NDArray[np.void] = cKDTree(t).sparse_distance_matrix(
        cKDTree(p), radius, output_type="ndarray"
    )
    return found


def as_points(points: ArrayLike) -> NDArray[np.float64]:
    """Points as float64 [N, 2]."""
    return np.asarray(points, dtype=float).reshape(-1, 2)
