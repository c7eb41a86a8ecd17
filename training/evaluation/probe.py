"""The probe protocol: logistic regression, k-NN and few-shot classification of frozen embeddings.

The embeddings are standardised. The regression has an L2 penalty, whose C is chosen by grouped
cross-validation inside the train part. Figures equal those of a referee script to the third decimal
(tests/unit/training/evaluation/test_probe.py). In addition, AUROC has an interval over groups, and
two encoders are compared on the same bootstrap draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.metrics import Interval, balanced_accuracy
from training.data.labels import FOLDS, read_label_rows
from training.evaluation.outcomes import Floats, Ints, Outcome, Runs

CS = 10.0 ** np.arange(-5, 2)
NEIGHBOURS = 20
DRAWS = 50  # few-shot draws
BOOTSTRAPS = 500


@dataclass(frozen=True)
class Labels:
    """A labels.csv as arrays, one entry an image.

    Attributes:
        files: Paths below the table's folder.
        y: Class numbers.
        groups: Patient, slide or case.
        split: "train", "folds", "test" or another held-out part.
        names: The classes in the order of their numbers.
    """

    files: list[str]
    y: Ints
    groups: NDArray[np.str_]
    split: NDArray[np.str_]
    names: list[str]


@dataclass(frozen=True)
class Summary:
    """Figures of one encoder on one set: means over training runs and probe seeds.

    Attributes:
        linear: Balanced accuracy of the logistic regression.
        linear_sd: Its standard deviation over training runs, or over probe seeds for one run.
        auroc: AUROC of the logistic regression.
        auroc_sd: As linear_sd.
        knn20: Balanced accuracy of 20 nearest neighbours.
        shot5: Balanced accuracy with 5 images a class.
        shot16: Balanced accuracy with 16 images a class.
        linear_interval: 95 % interval of `linear` from a bootstrap over groups.
        auroc_interval: The same of `auroc`.
        n: Number of evaluated images.
        groups: Number of their groups.
        runs: Number of training runs.
        part: The evaluated part.
    """

    linear: float
    linear_sd: float
    auroc: float
    auroc_sd: float
    knn20: float
    shot5: float
    shot16: float
    linear_interval: tuple[float, float]
    auroc_interval: tuple[float, float]
    n: int
    groups: int
    runs: int
    part: str


def read_labels(path: Path, *, choose: bool = False) -> Labels:
    """Read a labels.csv with columns file, label and, optionally, group and split.

    Args:
        path: The table, in the folder of its images.
        choose: Rows of train and folds parts alone: no held-out part is read.

    Returns:
        Its rows.

    Raises:
        ConfigError: See `read_label_rows`.
    """
    rows = read_label_rows(path, choose=choose)
    names = sorted({row.label for row in rows})
    return Labels(
        [row.file for row in rows],
        np.array([names.index(row.label) for row in rows]),
        np.array([row.group for row in rows]),
        np.array([row.part for row in rows]),
        names,
    )


def probe(
    x: NDArray[np.float32], labels: Labels, *, test: str | None, seeds: int = 3
) -> list[Outcome]:
    """Fit and evaluate the probe.

    Args:
        x: Embeddings [N, D], rows as in `labels`.
        labels: Their labels.
        test: The part that is evaluated, after a fit on `train`; None: five folds by group.
        seeds: Seeds of the folds and of the few-shot draws.

    Returns:
        One outcome a seed.

    Raises:
        ConfigError: A group is in train and in the evaluated part, embeddings are not finite, or
            there are too few groups of a class to fit on.
    """
    rows = x.astype(np.float64)
    if not np.isfinite(rows).all():
        raise ConfigError(
            f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} embeddings hold NaN or"
            " infinity: the encoder is broken, or overflows in this precision"
        )
    with warnings.catch_warnings():
        # no convergence at weak regularisation, folds without a class
        warnings.simplefilter("ignore")
        return [
            _one_seed(rows, labels, parts_of(labels, test, seed), seed) for seed in range(seeds)
        ]


def summarise(runs: Runs, part: str) -> Summary:
    """The figures of one encoder on one set.

    Args:
        runs: Its outcomes.
        part: The name of the evaluated part.

    Returns:
        The figures. Intervals are over groups (patients, slides), never over tiles.
    """
    every = [o for run in runs for o in run]
    first = every[0]
    return Summary(
        linear=_over(every, balanced),
        linear_sd=_deviation(runs, balanced),
        auroc=_over(every, _area),
        auroc_sd=_deviation(runs, _area),
        knn20=_over(every, lambda o: balanced(o, near=True)),
        shot5=_over(every, lambda o: o.shots[5]),
        shot16=_over(every, lambda o: o.shots[16]),
        linear_interval=interval_of(
            first, lambda i: _over(every, lambda o: balanced_accuracy(o.y[i], o.predicted[i]))
        ),
        auroc_interval=interval_of(
            first, lambda i: _over(every, lambda o: auroc(o.y[i], o.probability[i]))
        ),
        n=len(first.y),
        groups=len(np.unique(first.groups)),
        runs=len(runs),
        part=part,
    )


def paired_auroc(ours: Runs, theirs: Runs) -> Interval:
    """Difference of mean AUROC of two encoders on the same images.

    Args:
        ours: The outcomes of one encoder.
        theirs: Those of the other.

    Returns:
        Ours minus theirs, with its 95 % interval over groups; both encoders on the same draws.
    """
    a, b = ([o for run in runs for o in run] for runs in (ours, theirs))

    def difference(i: Ints) -> float:
        left, right = (_over(side, lambda o: auroc(o.y[i], o.probability[i])) for side in (a, b))
        return left - right

    low, high = interval_of(a[0], difference)
    return Interval(difference(np.arange(len(a[0].y))), low, high)


def _over(outcomes: list[Outcome], figure: Callable[[Outcome], float]) -> float:
    return float(np.mean([figure(o) for o in outcomes]))


def _deviation(runs: Runs, figure: Callable[[Outcome], float]) -> float:
    if len(runs) > 1:
        return float(np.std([_over(run, figure) for run in runs], ddof=1))
    return float(np.std([figure(o) for o in runs[0]]))


def _area(outcome: Outcome) -> float:
    return auroc(outcome.y, outcome.probability)


def auroc(y: Ints, probability: Floats) -> float:
    """AUROC of class probabilities, of each class against the rest for more than two.

    Args:
        y: Class numbers [N].
        probability: [N, classes].

    Returns:
        `metrics.auroc`; NaN unless all classes occur in `y`.
    """
    if len(np.unique(y)) < probability.shape[1]:
        return float("nan")
    return metrics.auroc(y, probability[:, 1] if probability.shape[1] == 2 else probability)


def balanced(outcome: Outcome, *, near: bool = False) -> float:
    """Balanced accuracy of the linear probe, or of the nearest neighbours."""
    return balanced_accuracy(outcome.y, outcome.neighbours if near else outcome.predicted)


def interval_of(outcome: Outcome, figure: Callable[[Ints], float]) -> tuple[float, float]:
    """95 % interval of figure(image indices) over groups; NaN where no draw has all classes."""
    try:
        found = metrics.grouped_bootstrap(
            figure, outcome.groups.tolist(), labels=outcome.y, draws=BOOTSTRAPS
        )
    except ConfigError:
        return float("nan"), float("nan")
    return found.low, found.high


def part_of(labels: Labels) -> str | None:
    """The held-out part of a set that is evaluated after a fit on its train part.

    Args:
        labels: The set.

    Returns:
        "test" where there is one, else "val", else the first of its other held-out parts. None for
        a set that is read by folds: one without a train part or without a held-out one.
    """
    parts = set(labels.split.tolist())
    held_out = sorted(parts - {"train", FOLDS}, key=lambda p: (p != "test", p != "val", p))
    return held_out[0] if held_out and "train" in parts else None


def parts_of(labels: Labels, test: str | None, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """The rows that are fitted on and those that are evaluated, once or by fold.

    Args:
        labels: The set.
        test: The evaluated part; None: five folds by group.
        seed: Of the folds.

    Raises:
        ConfigError: A group is in train and in the evaluated part, or there are too few for folds.
    """
    if test is None:
        yield from folds_of(labels.y, labels.groups, seed)
        return
    train, evaluated = np.flatnonzero(labels.split == "train"), np.flatnonzero(labels.split == test)
    both = set(labels.groups[train]) & set(labels.groups[evaluated])
    if both:
        raise ConfigError(
            f"groups {sorted(both)[:3]} are in train and in {test}: give each group one split"
        )
    yield train, evaluated


def folds_of(y: Ints, groups: NDArray[np.str_], seed: int) -> list[tuple[Ints, Ints]]:
    """Five folds by group, fewer where there are fewer groups: rows to fit on and to evaluate.

    Raises:
        ConfigError: All rows are of one group, or no class has a row for every fold.
    """
    count = min(5, len(np.unique(groups)))
    if count < 2:
        raise ConfigError(
            "the rows that are fitted on are all of one group, and C is chosen by folds by group:"
            " label images of two groups (patients, slides) or more for the train part, and of"
            " three for a set without a split"
        )
    if max(np.bincount(y)) < count:
        raise ConfigError(
            f"no class has {count} images to fit on, one for each fold by group: label more"
        )
    return [*StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(y, y, groups)]


def _one_seed(x: Floats, labels: Labels, parts: Iterator[tuple[Ints, Ints]], seed: int) -> Outcome:
    n, classes, y = len(x), len(labels.names), labels.y
    predicted, near, used = np.full(n, -1), np.full(n, -1), np.zeros(n, bool)
    probability, rng = np.zeros((n, classes)), np.random.default_rng(seed)
    shots: dict[int, list[float]] = {5: [], 16: []}
    cs = []
    for a, b in parts:
        model, xb = _fit(x[a], y[a], labels.groups[a], x[b], seed)
        cs.append(float(model.C))
        predicted[b], near[b], used[b] = (
            model.predict(xb),
            metrics.knn_predict(x[b], x[a], y[a], k=NEIGHBOURS),
            True,
        )
        probability[np.ix_(b, model.classes_)] = model.predict_proba(xb)
        for count, values in shots.items():
            values.append(_few_shot(x[a], y[a], x[b], y[b], count, rng))
    means = {count: float(np.mean(values)) for count, values in shots.items()}
    return Outcome(
        y[used],
        labels.groups[used],
        predicted[used],
        probability[used],
        near[used],
        means,
        tuple(cs),
    )


def _fit(
    xa: Floats, ya: Ints, groups: NDArray[np.str_], xb: Floats, seed: int
) -> tuple[LogisticRegression, Floats]:
    """The logistic regression with the chosen C, and the standardised rows of `xb`."""
    if len(np.unique(ya)) < 2:
        raise ConfigError(
            "the rows that are fitted on are all of one class: label images of two groups"
            " (patients, slides) or more for each class, or give each class images in train"
        )
    c = _choose_c(xa, ya, groups, seed)
    scaler = StandardScaler().fit(xa)
    return logistic(c).fit(scaler.transform(xa), ya), scaler.transform(xb)


def _choose_c(x: Floats, y: Ints, groups: NDArray[np.str_], seed: int) -> float:
    score = np.zeros(len(CS))
    for a, b in folds_of(y, groups, seed):
        if len(np.unique(y[a])) < len(np.unique(y)):
            continue
        scaler = StandardScaler().fit(x[a])
        xa, xb = scaler.transform(x[a]), scaler.transform(x[b])
        # from strong to weak regularisation, each fit starting from the one before
        model = logistic(float(CS[0]), warm=True)
        for i, c in enumerate(CS):
            score[i] += balanced_accuracy(y[b], model.set_params(C=c).fit(xa, y[a]).predict(xb))
    return float(CS[int(np.argmax(score))])


def logistic(c: float, *, warm: bool = False) -> LogisticRegression:
    """The regression of the probe, for standardised embeddings."""
    return LogisticRegression(C=c, max_iter=400, tol=1e-3, warm_start=warm, class_weight="balanced")


def _few_shot(
    xa: Floats, ya: Ints, xb: Floats, yb: Ints, count: int, rng: np.random.Generator
) -> float:
    """Balanced accuracy of the nearest class mean from `count` images a class, mean over draws."""
    mean, sd = xa.mean(0), xa.std(0) + 1e-6
    a, b = ((v - mean) / sd for v in (xa, xb))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    classes, scores = np.unique(ya), []
    for _ in range(DRAWS):
        means = np.stack(
            [a[rng.permutation(np.flatnonzero(ya == c))[:count]].mean(0) for c in classes]
        )
        scores.append(balanced_accuracy(yb, classes[np.argmax(b @ means.T, axis=1)]))
    return float(np.mean(scores))
