"""Segmentation, detection and classification metrics, and bootstrap intervals over groups.

numpy alone, except for what matches points one to one: `matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathencoder.errors import ConfigError
from pathencoder.matching import as_points, match_points


@dataclass(frozen=True)
class InstanceScores:
    """Scores of a predicted instance map against the truth, all in 0..1.

    Attributes:
        dice: Dice coefficient of the foreground.
        aji: Aggregated Jaccard index.
        pq: Panoptic quality; objects match at IoU > 0.5.
        f1: F1 of the objects; they match at IoU > 0.5.
    """

    dice: float
    aji: float
    pq: float
    f1: float


@dataclass(frozen=True)
class DetectionScores:
    """Precision, recall and F1 of matched points.

    The counts are kept, so that the scores of several images can be pooled.
    """

    precision: float
    recall: float
    f1: float
    matched: int
    predicted: int
    true: int

    @classmethod
    def of(cls, matched: int, predicted: int, true: int) -> DetectionScores:
        """Scores from counts; 1 where there is nothing to find and nothing was found."""
        if predicted == true == 0:
            return cls(1.0, 1.0, 1.0, 0, 0, 0)
        precision, recall = matched / max(1, predicted), matched / max(1, true)
        return cls(precision, recall, 2 * matched / (predicted + true), matched, predicted, true)


@dataclass(frozen=True)
class Interval:
    """A statistic with its percentile interval over resampled groups."""

    value: float
    low: float
    high: float


def dice(truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> float:
    """Dice coefficient of two masks of one shape (non-zero is foreground); 1 if both are empty."""
    t, p = _same_shape(truth, predicted)
    total = np.count_nonzero(t) + np.count_nonzero(p)
    return 1.0 if total == 0 else float(2 * np.count_nonzero((t != 0) & (p != 0)) / total)


def instance_scores(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> InstanceScores:
    """Dice, AJI, PQ and F1 of two instance maps.

    AJI: Kumar et al. 2017, algorithm 1, in the common form in which a prediction may match several
    true objects. PQ: Kirillov et al. 2019, equation 1. Two empty maps score 1; an empty map scores
    0 against one with objects.

    Args:
        truth: Integers [H, W]; 0 is background, every other number one object.
        predicted: The same for the prediction.

    Returns:
        The scores.

    Raises:
        ConfigError: The maps differ in shape.
    """
    inter = overlaps(truth, predicted)[1:, :]
    areas_t, inter = inter.sum(1), inter[:, 1:]
    areas_p = np.bincount(_compact(predicted).ravel(), minlength=inter.shape[1] + 1)[1:]
    foreground = dice(truth, predicted)
    if 0 in inter.shape:
        same = float(inter.shape == (0, 0))
        return InstanceScores(foreground, same, same, same)
    union = areas_t[:, None] + areas_p[None] - inter
    iou = inter / union
    match = iou > 0.5
    f1 = 2 * match.sum() / sum(inter.shape)
    quality = iou[match].mean() if match.any() else 0.0
    return InstanceScores(
        foreground, _aji(inter, union, areas_t, areas_p), float(quality * f1), float(f1)
    )


def overlaps(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count the shared pixels of every pair of objects of two instance maps [H, W].

    Returns:
        int64 [true + 1, predicted + 1]. Row and column 0 are the background; the others are the
        objects in the order of their labels.

    Raises:
        ConfigError: The maps differ in shape.
    """
    t, p = (_compact(m) for m in _same_shape(truth, predicted))
    rows, columns = int(t.max(initial=0)) + 1, int(p.max(initial=0)) + 1
    counts: NDArray[np.int64] = np.bincount(
        t.ravel() * columns + p.ravel(), minlength=rows * columns
    ).reshape(rows, columns)
    return counts


def _aji(
    inter: NDArray[np.int64],
    union: NDArray[np.int64],
    areas_t: NDArray[np.int64],
    areas_p: NDArray[np.int64],
) -> float:
    rows = np.arange(len(inter))
    best = (inter / union).argmax(1)
    hit = inter[rows, best] > 0
    unused = np.setdiff1d(np.arange(len(areas_p)), best[hit])
    joined = union[rows, best][hit].sum() + areas_t[~hit].sum() + areas_p[unused].sum()
    return float(inter[rows, best][hit].sum() / joined)


def detection_scores(truth: ArrayLike, predicted: ArrayLike, radius: float) -> DetectionScores:
    """Precision, recall and F1 of points matched by `match_points`."""
    pairs = match_points(truth, predicted, radius)
    return DetectionScores.of(len(pairs), len(as_points(predicted)), len(as_points(truth)))


def balanced_accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean recall over the classes that occur in `truth`; both are [N] labels of any kind."""
    t, p = np.asarray(truth), np.asarray(predicted)
    _same_length(t, p)
    _, class_of, sizes = np.unique(t, return_inverse=True, return_counts=True)
    right: NDArray[np.int64] = np.bincount(class_of[t == p], minlength=len(sizes))
    return float((right / sizes).mean())


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; with several classes the mean of each class against the rest.

    Args:
        truth: [N] labels of any kind.
        scores: [N] scores of the larger of two labels, or [N, C] in the order of sorted labels.
            Ties count half.

    Returns:
        The area, in 0..1.

    Raises:
        ConfigError: `truth` holds one class only, or `scores` has another number of columns.
    """
    t, s = np.asarray(truth), np.asarray(scores, dtype=float)
    _same_length(t, s)
    classes = np.unique(t)
    columns = [s] if s.ndim == 1 else list(s.T)
    if (
        len(classes) < 2
        or len(columns) not in (1, len(classes))
        or (len(columns) == 1 and len(classes) > 2)
    ):
        found = f"{len(classes)} classes with {len(columns)} score columns"
        raise ConfigError(f"AUROC of {found}: give one column for two classes, or one for each")
    positives = classes[-1:] if len(columns) == 1 else classes
    return float(
        np.mean(
            [_binary_auroc(t == c, column) for c, column in zip(positives, columns, strict=True)]
        )
    )


def _binary_auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def nearest_neighbours(
    queries: ArrayLike,
    rows: ArrayLike,
    count: int,
    *,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The rows with the largest cosine to each query.

    Args:
        queries: Embeddings [Q, D].
        rows: Embeddings [N, D] among which neighbours are looked for.
        count: How many neighbours; N where there are fewer rows.
        groups: Groups (patients, slides) of the queries [Q] and of the rows [N]. A row of the
            query's own group comes last, with a cosine of -inf.

    Returns:
        Indices into `rows` [Q, count], the nearest first, and their cosines [Q, count].
    """
    a, b = (_unit_rows(np.asarray(x)) for x in (queries, rows))
    cosine = a @ b.T
    if groups is not None:
        cosine[np.asarray(groups[0])[:, None] == np.asarray(groups[1])[None]] = -np.inf
    order = np.argsort(-cosine, axis=1)[:, :count]
    return order, np.take_along_axis(cosine, order, 1)


def knn_predict(
    queries: ArrayLike,
    rows: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 20,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray[Any]:
    """The most frequent label among the `k` nearest rows by cosine; of equals the smallest.

    Args:
        queries: Embeddings [Q, D].
        rows: Embeddings [N, D] of the labelled images.
        labels: Their labels [N].
        k: Number of neighbours.
        groups: Groups of the queries [Q] and of the rows [N]: rows of a query's own group do not
            vote.

    Returns:
        A label for each query [Q].

    Raises:
        ConfigError: A query has no row of another group.
    """
    classes, class_of = np.unique(np.asarray(labels), return_inverse=True)
    near, cosine = nearest_neighbours(queries, rows, k, groups=groups)
    votes = cosine != -np.inf  # NaN of broken embeddings votes: only groups keep a row out
    if not votes.any(1).all():
        raise ConfigError("k-NN: every labelled row is of the query's own group: give more groups")
    found = [
        np.bincount(class_of[row[vote]]).argmax() for row, vote in zip(near, votes, strict=True)
    ]
    return classes[np.array(found, dtype=np.int64)]


def _unit_rows(x: NDArray[Any]) -> NDArray[Any]:
    unit: NDArray[Any] = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
    return unit


def grouped_bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    groups: Sequence[object],
    *,
    labels: ArrayLike | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic over resampled groups, never over their members alone.

    Args:
        statistic: Takes row indices int64 [K] and returns a number. Draws for which it raises
            ConfigError (one class only) are left out.
        groups: The group (patient, slide, image) of each row [N].
        labels: Classes of the rows [N]: draws in which one is missing are left out.
        draws: Number of resamples.
        level: Coverage of the interval.
        seed: Seed of the draws. The same groups and seed give the same draws.

    Returns:
        The statistic of all rows, with its interval.

    Raises:
        ConfigError: There are no groups, or no draw gave a value.
    """
    rng = np.random.default_rng(seed)
    is_complete = _holds_all(labels)
    _, inverse = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    members = [np.flatnonzero(inverse == g) for g in range(int(inverse.max(initial=-1)) + 1)]
    if not members:
        raise ConfigError("a bootstrap over no groups: give one group for each row")
    picks = (rng.integers(len(members), size=len(members)) for _ in range(draws))
    samples = (np.concatenate([members[g] for g in pick]) for pick in picks)
    tried = (_try(statistic, rows) for rows in samples if is_complete(rows))
    values = [value for value in tried if value is not None]
    if not values:
        raise ConfigError(
            f"none of {draws} resamples of {len(members)} groups gave a value: more groups are"
            " needed"
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(statistic(np.arange(len(inverse))), float(low), float(high))


def paired_difference(
    first: ArrayLike, second: ArrayLike, groups: Sequence[object] | None = None, *, seed: int = 0
) -> Interval:
    """Mean difference of two methods' scores with its bootstrap interval.

    Args:
        first: [N] scores.
        second: [N] scores of the same images.
        groups: The group of each image. None: each image is a group.
        seed: Of the random numbers.

    Returns:
        The mean of `first` - `second` with its 95 % interval.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    _same_length(a, b)
    return grouped_bootstrap(
        lambda rows: float((a - b)[rows].mean()),
        range(len(a)) if groups is None else groups,
        draws=2000,
        seed=seed,
    )


def _holds_all(labels: ArrayLike | None) -> Callable[[NDArray[np.int64]], bool]:
    """Whether rows hold every class of `labels`; always, where there are none."""
    if labels is None:
        return lambda rows: True
    classes, class_of = np.unique(np.asarray(labels), return_inverse=True)
    return lambda rows: bool(np.bincount(class_of[rows], minlength=len(classes)).all())


def _try(statistic: Callable[[NDArray[np.int64]], float], rows: NDArray[np.int64]) -> float | None:
    try:
        return statistic(rows)
    except ConfigError:
        return None


def _compact(labels: NDArray[np.generic]) -> NDArray[np.int64]:
    """Labels numbered 1..n in their order, background 0."""
    values = np.unique(labels)
    values = values[values != 0]
    return np.where(labels == 0, 0, np.searchsorted(values, labels) + 1)


def _same_shape(
    truth: NDArray[np.generic], predicted: NDArray[np.generic]
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    if truth.shape != predicted.shape:
        raise ConfigError(
            f"the maps differ in shape, {truth.shape} against {predicted.shape}: score them at one"
            " resolution"
        )
    return truth, predicted


def _same_length(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if len(a) != len(b) or not len(a):
        raise ConfigError(
            f"scores need two non-empty rows of one length, not {len(a)} and {len(b)}"
        )
