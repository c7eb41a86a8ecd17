"""Survival: the partial likelihood of Cox, and the concordance index of Harrell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.rows import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor


def cox_loss(risks: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Minus the log of the partial likelihood (Cox 1972, ties by Breslow), the mean over events.

    Args:
        risks: Log of the relative hazard [B].
        times: Of the event, or of the last observation [B].
        events: bool [B], at least one of them true.

    Returns:
        A scalar.
    """
    import torch

    at_risk = times[None, :] >= times[:, None]
    every = risks[None, :].expand(len(risks), -1).masked_fill(~at_risk, -torch.inf)
    return (every.logsumexp(1) - risks)[events].mean()


def partial_likelihood(risks: Floats, times: Floats, events: NDArray[np.bool_]) -> float:
    """`cox_loss` of numpy arrays; NaN without an event."""
    if not events.any():
        return float("nan")
    at_risk = times[None, :] >= times[:, None]
    every = np.where(at_risk, risks[None, :], -np.inf)
    most = every.max(1, keepdims=True)
    sums = np.log(np.exp(every - most).sum(1)) + most[:, 0]
    return float((sums - risks)[events].mean())


class Concordance:
    """Harrell's concordance index: how often the one with the earlier event had the higher risk.

    A pair counts where one had an event before the other's time; equal risks count half.

    Args:
        risks: [N].
        times: [N].
        events: bool [N].
        folds: The fold of each row [N]: risks of two fits cannot be compared, so that only pairs of
            one fold count. None: all pairs.
    """

    def __init__(
        self, risks: Floats, times: Floats, events: NDArray[np.bool_], folds: Ints | None = None
    ) -> None:
        earlier = times[:, None] < times[None, :]
        same = (times[:, None] == times[None, :]) & ~events[None, :]
        pairs = (earlier | same) & events[:, None]
        if folds is not None:
            pairs &= folds[:, None] == folds[None, :]
        higher = (risks[:, None] > risks[None, :]) + 0.5 * (risks[:, None] == risks[None, :])
        self._pairs = pairs.astype(np.float64)
        self._right = self._pairs * higher

    def __call__(self, rows: Ints) -> float:
        """The index of these rows, which may repeat.

        Raises:
            ConfigError: No pair can be compared.
        """
        often = np.bincount(rows, minlength=len(self._pairs)).astype(np.float64)
        pairs = float(often @ self._pairs @ often)
        if not pairs:
            raise ConfigError("concordance: no pair of which one had an event before the other")
        return float(often @ self._right @ often) / pairs
