"""Folds that keep groups together and classes in every part that is fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.heads.rows import Ints

FOLDS = 5
_TRIES = 20
Folds = list[tuple[Ints, Ints]]  # rows to fit on, rows to evaluate


class NoFolds(ConfigError):
    """A class occurs in too few groups for folds."""


def require_sklearn() -> None:
    """Raises MissingExtra where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("heads", "fitting a head") from error


def grouped_folds(y: Ints, groups: Ints, *, count: int = FOLDS, seed: int = 0) -> Folds:
    """Folds by group, with classes in like shares; every fitted part holds every class.

    Args:
        y: Class numbers [N].
        groups: Group numbers [N].
        count: Folds at most: a class that has fewer groups limits it.
        seed: Of the shuffling.

    Returns:
        Pairs of rows: to fit on, and to evaluate.

    Raises:
        NoFolds: A class occurs in one group alone.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    classes = np.unique(y)
    scarce = min(len(np.unique(groups[y == c])) for c in classes)
    alone = len(np.unique(groups)) == len(groups)  # the plain method is a hundred times as fast
    for folds in range(min(count, scarce), 1, -1):
        for attempt in range(1 if alone else _TRIES):
            maker = StratifiedKFold if alone else StratifiedGroupKFold
            splitter = maker(folds, shuffle=True, random_state=seed + attempt)
            found = [
                (np.asarray(a), np.asarray(b))
                for a, b in splitter.split(y, y, None if alone else groups)
            ]
            if all(len(np.unique(y[a])) == len(classes) and len(b) for a, b in found):
                return found
    raise NoFolds("a class occurs in one group alone: no folds by group are possible")


def given_folds(names: Sequence[str], y: Ints, classes: Sequence[str]) -> Folds:
    """The folds that a data set gives, by the name of each row's fold.

    Raises:
        ConfigError: There is one fold alone, or a class occurs in one fold alone.
    """
    fold_of = np.asarray(names)
    found = [
        (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in sorted(set(names))
    ]
    if len(found) < 2:
        raise ConfigError(f"all rows are of one fold, {names[0]!r}: give two or more, or none")
    for fitted, evaluated in found:
        missing = sorted({classes[c] for c in np.setdiff1d(np.unique(y), y[fitted])})
        if missing:
            raise ConfigError(
                f"class {missing[0]!r} occurs in {names[evaluated[0]]} alone: without that fold it"
                " could not be fitted. Spread each class over two folds or more"
            )
    return found
