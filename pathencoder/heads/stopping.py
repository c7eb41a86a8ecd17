"""How many epochs a small network is trained: as many as grouped folds need.

One fold of few patients chooses by chance: on simulated cohorts of 16 patients it ended anywhere
from the first to the hundredth epoch. So folds are judged together until they hold enough groups,
and by the loss that is left after temperature scaling, as heads are scaled at the end: a network
soon becomes too sure of itself, long before its order of the images stops improving. The first
steps do not count: a network that has hardly learnt has a low loss only because it is never sure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads import calibration
from pathencoder.heads.folds import Folds, grouped_folds
from pathencoder.heads.rows import Floats, Ints

_ENOUGH = 200  # groups that are judged; with more of them one fold is as good as five
DIVERGED = "the training diverged {}: scores are NaN or infinite. Give a lower learning_rate="
_PATIENCE = 15  # epochs without a lower loss


class Run(Protocol):
    """The training of a network on the rows of one fold."""

    def epoch(self) -> None:
        """One pass over the rows."""

    def held_out(self) -> Floats:
        """Scores [N, C] of the rows that the fold leaves out, of the network as it is now."""


R = TypeVar("R", bound=Run)


def folds_for(y: Ints, groups: Ints, seed: int) -> Folds:
    """Grouped folds, only as many as hold enough groups together.

    Raises:
        NoFolds: A class occurs in one group alone.
    """
    found = grouped_folds(y, groups, seed=seed)
    judged = np.cumsum([len(np.unique(groups[held_out])) for _, held_out in found])
    return found[: int(np.searchsorted(judged, _ENOUGH)) + 1]


def best_epoch(
    runs: Sequence[R], loss: Callable[[list[Floats]], float], longest: int, fewest: int = 1
) -> int:
    """The epoch with the least loss on what the folds leave out.

    Args:
        runs: A training a fold; they go on side by side.
        loss: Of the scores of every run.
        longest: Epochs at most.
        fewest: Epochs at least, where `longest` allows it.

    Raises:
        ConfigError: A training diverged: scores are NaN or infinite.
    """
    first = max(1, min(fewest, longest))
    best, best_at = np.inf, first
    for epoch in range(1, longest + 1):
        for run in runs:
            run.epoch()
        if epoch < first:
            continue
        scores = [run.held_out() for run in runs]
        if not all(np.isfinite(one).all() for one in scores):
            raise ConfigError(DIVERGED.format(f"in epoch {epoch} of a fold"))
        value = loss(scores)
        if value < best:
            best, best_at = value, epoch
        elif epoch - best_at >= _PATIENCE:
            break
    return best_at


def class_loss(y: Sequence[Ints], weights: Sequence[Floats]) -> Callable[[list[Floats]], float]:
    """The log loss of classes after temperature scaling, of all folds together.

    Args:
        y: Class numbers that each run is judged by.
        weights: Of the same rows.
    """
    numbers, each = np.concatenate(y), np.concatenate(weights)

    def loss(scores: list[Floats]) -> float:
        return calibration.scaled_loss(np.concatenate(scores), numbers, each, smooth=False)

    return loss
