"""Temperature scaling, and the probability below which a head abstains.

Both are read from predictions of images that were not fitted on: those of the folds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.rows import Floats, Ints, softmax

NEVER = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Abstention:
    """Where a head abstains, and what that costs on the folds.

    Attributes:
        max_error: The share of wrong labels that was asked for.
        threshold: The smallest probability of the label that is not abstained from.
        error: Share of wrong labels among those that are kept; NaN where none is.
        kept: Share of images that are kept.
        images: How many are kept; None in reports of earlier versions.
        most: The share of wrong labels that so few images do not exclude: the upper end of
            Wilson's interval (1927), one-sided, 95 %. None as above.
    """

    max_error: float
    threshold: float
    error: float
    kept: float
    images: int | None = None
    most: float | None = None


def temperature(logits: Floats, y: Ints, weights: Floats, *, smooth: bool = True) -> float:
    """The number that scores are divided by, so that their softmax has the least log loss.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2; computed by
    scikit-learn. Without a mistake in `y` the loss keeps falling with the temperature, and
    every probability would be 1. So each row counts a little as of every class, as in Platt 1999,
    "Probabilistic Outputs for Support Vector Machines", section 2.2: by C / (N + C) in all, which
    vanishes as rows grow many.

    Args:
        logits: Scores [N, C].
        y: Class numbers [N].
        weights: Of each row [N].
        smooth: Whether rows count as of every class; without it the loss is the least on these
            rows, which compares models and sets no probability.

    Returns:
        The temperature.
    """
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV

    classes = logits.shape[1]
    if smooth:
        logits, y, weights = _smoothed(logits, y, weights)
    binary, everything = classes == 2, np.arange(len(y))
    scores = logits[:, 1:] - logits[:, :1] if binary else logits

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A classifier whose scores are its input: there is nothing to fit."""

        def fit(self, x: Floats, y: Ints, sample_weight: Floats | None = None) -> Given:
            self.classes_ = np.arange(classes)
            return self

        def decision_function(self, x: Floats) -> Floats:
            return x[:, 0] if binary else x

        def predict(self, x: Floats) -> Ints:
            raise NotImplementedError

    scaled = CalibratedClassifierCV(
        Given(), method="temperature", ensemble=False, cv=[(everything, everything)]
    )
    scaled.fit(scores, y, sample_weight=weights)
    inverse = float(scaled.calibrated_classifiers_[0].calibrators[0].beta_)
    # scikit-learn takes a margin m as the scores -m and m, whose difference is 2 m
    return 1 / (2 * inverse) if binary else 1 / inverse


def _smoothed(logits: Floats, y: Ints, weights: Floats) -> tuple[Floats, Ints, Floats]:
    """Every row once for each class, weighted by how much it counts as of that class."""
    rows, classes = logits.shape
    share = classes / (rows + classes)
    every = np.repeat(np.arange(classes), rows)
    true = every == np.tile(y, classes)
    counted = np.tile(weights, classes) * (true * (1 - share) + share / classes)
    return np.tile(logits, (classes, 1)), every, counted


def log_loss(logits: Floats, y: Ints, weights: Floats) -> float:
    """Weighted mean of minus the log of the true class's probability."""
    true = softmax(logits)[np.arange(len(y)), y]
    return float(np.average(-np.log(true.clip(1e-300)), weights=weights))


def scaled_loss(logits: Floats, y: Ints, weights: Floats, *, smooth: bool = True) -> float:
    """The log loss after temperature scaling on the same rows; arguments as for `temperature`.

    A network that trains on becomes too sure of itself before its order of the images stops
    improving. What scaling corrects at the end does not count here.
    """
    divisor = temperature(logits, y, weights, smooth=smooth)
    return log_loss(logits / divisor, y, weights)


def check_max_error(value: object) -> None:
    """Raises ConfigError unless a value is None, or a share above 0 and below 1."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    if value is not None and not fits:
        raise ConfigError(f"max_error={value!r}: a share of wrong labels, for example 0.05")


def abstention(probabilities: Floats, y: Ints, max_error: float) -> Abstention:
    """The lowest threshold at which the share of wrong labels is at most `max_error`.

    Args:
        probabilities: [N, C], of images that were not fitted on.
        y: Class numbers [N].
        max_error: Share of wrong labels among those that are kept.

    Returns:
        The threshold; `NEVER` where no threshold reaches the share.
    """
    sure, wrong = _sure_and_wrong(probabilities, y)
    order = np.argsort(-sure, kind="stable")
    errors: NDArray[np.float64] = np.cumsum(wrong[order]) / np.arange(1, len(y) + 1)
    # of images with one probability all are kept or none
    last = np.append(sure[order][1:] < sure[order][:-1], [True])
    fits = np.flatnonzero(last & (errors <= max_error))
    threshold = float(sure[order][fits[-1]]) if len(fits) else NEVER
    return abstention_at(threshold, probabilities, y, max_error)


def abstention_at(threshold: float, probabilities: Floats, y: Ints, max_error: float) -> Abstention:
    """What a threshold that was set before keeps of these images; arguments as `abstention`."""
    sure, wrong = _sure_and_wrong(probabilities, y)
    kept = sure >= threshold
    count, errors = int(kept.sum()), int(wrong[kept].sum())
    if not count:
        return Abstention(max_error, threshold, float("nan"), 0.0, 0)
    most = _most_wrong(errors, count)
    return Abstention(max_error, threshold, errors / count, count / len(y), count, most)


def _sure_and_wrong(probabilities: Floats, y: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    return probabilities.max(1), np.asarray(probabilities.argmax(1) != y)


def _most_wrong(errors: int, count: int) -> float:
    """The upper end of Wilson's one-sided interval of a share, 95 %."""
    z = 1.6449
    share, square = errors / count, z**2 / count
    half = z * math.sqrt((share * (1 - share) + square / 4) / count)
    return (share + square / 2 + half) / (1 + square)
