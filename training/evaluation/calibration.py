"""Calibration of the probe's probabilities, as they are and after temperature scaling.

The temperature is scikit-learn's (`CalibratedClassifierCV`, method "temperature"): it is fitted on
held-out folds by group inside the train part, with the C that the probe chose. The probe weights
classes equally, so its probabilities are those of equally frequent classes: where classes are rare,
a part of the error is that, and one temperature cannot remove it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathencoder.errors import ConfigError
from training.evaluation.outcomes import Floats, Ints, Outcome
from training.evaluation.probe import Labels, folds_of, logistic, parts_of

BINS = 15


@dataclass(frozen=True)
class Calibrated:
    """Probabilities after temperature scaling, rows as in the outcome of the same seed.

    Attributes:
        probability: [n, classes].
        temperatures: Of each fold: logits are divided by it.
    """

    probability: Floats
    temperatures: tuple[float, ...]


def temperature_scaled(
    x: NDArray[np.float32], labels: Labels, outcome: Outcome, *, test: str | None, seed: int = 0
) -> Calibrated:
    """Fit the probe again with a temperature.

    Args:
        x: Embeddings [N, D], rows as in `labels`.
        labels: Their labels.
        outcome: What the probe of this seed found: its C are used.
        test: The evaluated part; None: five folds by group.
        seed: Of the folds.

    Returns:
        The probabilities of the evaluated rows.

    Raises:
        ConfigError: The outcome has no C, or the train part too few groups for folds that hold all
            classes.
    """
    rows, y = x.astype(np.float64), labels.y
    probability = np.zeros((len(rows), len(labels.names)))
    used, temperatures = np.zeros(len(rows), bool), []
    parts = list(parts_of(labels, test, seed))
    if len(outcome.cs) != len(parts):
        raise ConfigError("the outcome does not say which C was chosen: probe again")
    for c, (a, b) in zip(outcome.cs, parts, strict=True):
        model = CalibratedClassifierCV(
            make_pipeline(StandardScaler(), logistic(c)),
            method="temperature",
            cv=_complete_folds(y[a], labels.groups[a], seed),
            ensemble=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no convergence at weak regularisation
            model.fit(rows[a], y[a])
        probability[np.ix_(b, model.classes_)] = model.predict_proba(rows[b])
        used[b] = True
        beta = float(model.calibrated_classifiers_[0].calibrators[0].beta_)
        # two classes have the logits (-d, d): their difference is twice the probe's own
        temperatures.append(1 / (beta * (2 if len(model.classes_) == 2 else 1)))
    return Calibrated(probability[used], tuple(temperatures))


def expected_error(y: Ints, probability: Floats) -> float:
    """Expected calibration error of the predicted class (Naeini et al. 2015), in `BINS` bins.

    Args:
        y: Class numbers [n].
        probability: [n, classes].

    Returns:
        Mean absolute difference of confidence and accuracy over equally wide bins of confidence,
        weighted by their rows; 0..1.
    """
    bins = reliability(y, probability)
    total = sum(b.rows for b in bins)
    return sum(b.rows * abs(b.confidence - b.accuracy) for b in bins) / total


def brier(y: Ints, probability: Floats) -> float:
    """Brier score: mean over rows of the sum over classes of squared errors; 0..2."""
    truth = np.eye(probability.shape[1])[y]
    return float(((probability - truth) ** 2).sum(1).mean())


def log_loss(y: Ints, probability: Floats) -> float:
    """Mean negative logarithm of the probability of the true class, at least 1e-12."""
    return float(-np.log(probability[np.arange(len(y)), y].clip(1e-12)).mean())


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence.

    Attributes:
        rows: Their number.
        confidence: Their mean probability of the predicted class.
        accuracy: The share that is right.
    """

    rows: int
    confidence: float
    accuracy: float


def reliability(y: Ints, probability: Floats) -> list[Bin]:
    """The bins of a reliability plot that have rows, from low to high confidence."""
    confidence, right = probability.max(1), probability.argmax(1) == y
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(int(i.sum()), float(confidence[i].mean()), float(right[i].mean()))
        for i in (number == n for n in np.unique(number))
    ]


def _complete_folds(y: Ints, groups: NDArray[np.str_], seed: int) -> list[tuple[Ints, Ints]]:
    """Folds by group whose fitted parts hold all classes."""
    complete = folds_of(y, groups, seed)
    if any(len(np.unique(y[a])) < len(np.unique(y)) for a, _ in complete):
        raise ConfigError(
            "a temperature needs folds by group that hold all classes: the train part has too few"
            " groups"
        )
    return complete
