"""Choose the settings of a classifier by folds, evaluate it on folds, and calibrate it by them.

The same for every classifier: of images, whose rows are vectors, and of slides, whose rows are the
features of many tiles.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads import calibration
from pathencoder.heads.data.dataset import Dataset, is_fold
from pathencoder.heads.folds import FOLDS, Folds, NoFolds, given_folds, grouped_folds
from pathencoder.heads.report import Report, evaluated
from pathencoder.heads.rows import Floats, Ints, softmax

log = logging.getLogger(__name__)

_NESTED = 20_000  # rows up to which settings are chosen again inside each fold


class Labelled(Protocol):
    """What a classifier is fitted on: `rows.Rows`, or the bags of tiles of slides."""

    @property
    def x(self) -> Any:
        """The features of each row, an array whose first axis is the rows."""

    @property
    def y(self) -> Ints:
        """Class numbers [N]."""

    @property
    def groups(self) -> Ints:
        """Group numbers [N]."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def seed(self) -> int:
        """Of random numbers."""

    @property
    def weights(self) -> Floats:
        """The weight of each row [N], 1 in the mean."""

    def take(self, rows: Ints) -> Self:
        """The same with these rows alone."""


class Record(Protocol):
    """The encoder of a head."""

    def label(self) -> str:
        """Its name, with revision and sha256."""


class Judged(Protocol):
    """The head that gets a report, a temperature and a threshold."""

    kind: str
    classes: tuple[str, ...]
    settings: dict[str, Any]
    temperature: float
    threshold: float | None
    report: Report | None
    notes: tuple[str, ...]

    @property
    def record(self) -> Record:
        """Its encoder."""


class How(Protocol):
    """How a head is fitted; see `pathencoder.fit`."""

    @property
    def options(self) -> Any:
        """Of the kind of head."""

    @property
    def calibrate(self) -> bool:
        """Whether to scale probabilities by a temperature."""

    @property
    def max_error(self) -> float | None:
        """The share of wrong labels that is accepted."""


@dataclass(frozen=True)
class Named:
    """Folds, and what a report calls them."""

    pairs: Folds
    name: str


def chosen(model: type[Any], rows: Labelled, train: Dataset, options: Any) -> dict[str, Any]:
    """The settings that folds choose.

    Args:
        model: The kind of head.
        rows: What it is fitted on.
        train: The same rows, with names.
        options: What the user gave.

    Raises:
        ConfigError: Folds are needed, and not possible.
    """
    try:
        found: dict[str, Any] = model.choose(rows, options)
    except NoFolds as error:
        names = ", ".join(f"{name}=" for name in _chosen_options(options))
        raise ConfigError(
            f"{_scarce(train)}: nothing can be chosen by folds or evaluated. Add groups (patients)"
            f" of it, or give the settings of the head yourself ({names})"
        ) from error
    return found


def _chosen_options(options: Any) -> Sequence[str]:
    """The names of the options that folds choose where they are not given."""
    every = [field.name for field in dataclasses.fields(options)]
    found: Sequence[str] = getattr(options, "CHOSEN", every)
    return found


def _left_to_choose(options: Any) -> bool:
    return any(getattr(options, name) is None for name in _chosen_options(options))


def folds_of(train: Dataset, rows: Labelled, count: int = FOLDS) -> Named | None:
    """The folds that the data set gives, or new ones; None where none are possible.

    Raises:
        ConfigError: Some rows have a fold and others have none.
    """
    by = "" if train.groups is None else " by group"
    splits = train.splits or ()
    given = [split for split in splits if is_fold(split)]
    if given and len(given) < len(rows.y):
        raise ConfigError(
            f"{len(given)} of {len(rows.y)} {train.unit} of the train part have a fold: give every"
            " one a fold, or none"
        )
    if given:
        pairs = given_folds(splits, rows.y, train.classes)
        return Named(pairs, f"{len(pairs)} folds of the data set")
    try:
        pairs = grouped_folds(rows.y, rows.groups, count=count, seed=rows.seed)
    except NoFolds:
        return None
    return Named(pairs, f"{len(pairs)} folds{by}")


def judge(
    head: Judged,
    model: type[Any],
    rows: Labelled,
    train: Dataset,
    folds: Named | None,
    how: How,
    notes: list[str],
) -> None:
    """Evaluate on folds; set the temperature and the threshold by the same predictions.

    Args:
        head: Gets the report; without folds, the notes.
        model: Its kind.
        rows: What it was fitted on.
        train: The same rows, with names.
        folds: None: nothing can be evaluated, which the log says.
        how: The settings of the fit.
        notes: For the report.

    Raises:
        ConfigError: An abstention threshold is asked for, and there are no folds.
    """
    if folds is None:
        if how.max_error is not None:
            raise ConfigError(f"{_scarce(train)}: max_error= needs predictions on folds")
        head.notes = (*notes, f"{_scarce(train)}: nothing was evaluated on folds or calibrated")
        for note in head.notes:
            log.warning("%s", note)
        return
    nested = _chosen_inside(model, rows, folds.pairs, how)
    if nested is None and _left_to_choose(how.options):
        notes.append("settings were chosen once, with the folds that are evaluated here")
    logits = np.zeros((len(rows.y), rows.classes))
    for i, (fitted, held_out) in enumerate(folds.pairs):
        fold = model.fit(rows.take(fitted), head.settings if nested is None else nested[i])
        logits[held_out] = fold.logits(rows.x[held_out])
    if how.calibrate:
        head.temperature = calibration.temperature(logits, rows.y, rows.weights)
    probabilities = softmax(logits / head.temperature)
    kept = None
    if how.max_error is not None:
        kept = calibration.abstention(probabilities, rows.y, how.max_error)
        head.threshold = kept.threshold
    head.report = _report(head, probabilities, rows.y, train, folds.name, kept, notes)


def _scarce(train: Dataset) -> str:
    """Which class occurs in too few groups."""
    groups = train.groups or [str(row) for row in range(len(train))]
    of: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(train.labels, groups, strict=True):
        of[label].add(group)
    label = min(of, key=lambda name: len(of[name]))
    if train.groups is None:
        return f"class {label!r} has one {train.unit.removesuffix('s')}"
    if len(of[label]) > 1:
        return "no folds by group hold every class"
    return f"class {label!r} occurs in one group alone ({min(of[label])})"


def _chosen_inside(
    model: type[Any], rows: Labelled, folds: Folds, how: How
) -> list[dict[str, Any]] | None:
    """The settings that are chosen without each fold; None where that is slow or impossible."""
    if len(rows.y) > _NESTED:
        return None
    try:
        return [model.choose(rows.take(fitted), how.options) for fitted, _ in folds]
    except NoFolds:
        return None


def _report(
    head: Judged,
    probabilities: Floats,
    y: Ints,
    train: Dataset,
    part: str,
    abstention: calibration.Abstention | None,
    notes: Sequence[str],
) -> Report:
    return evaluated(
        probabilities,
        y,
        train.groups,
        head.classes,
        head=head.kind,
        encoder=head.record.label(),
        part=part,
        settings=head.settings,
        abstention=abstention,
        notes=notes,
        unit=train.unit,
    )
