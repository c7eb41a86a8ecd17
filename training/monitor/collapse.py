"""Collapse figures: how far the embeddings of different tiles lie apart."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def spread(embeddings: Tensor) -> dict[str, float]:
    """Collapse figures of [N, D] embeddings. feature_std.

    Mean standard deviation of the coordinates of unit vectors times sqrt(D), 1 when they fill the
    sphere, 0 when all are one. rankme: effective rank (Garrido et al. 2023, equation 1).
    """
    unit = F.normalize(embeddings.float(), dim=1)
    std = unit.std(0).mean() * unit.shape[1] ** 0.5
    p = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    p = p / p.sum() + 1e-7
    return {"feature_std": float(std), "rankme": float(torch.exp(-(p * p.log()).sum()))}


_FEWEST = 8  # tiles below which ranks and spreads say little


class FirstFeatures:
    """What a network gave for the first views of a step, caught on the way.

    No forward pass of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self._wanted = False
        self._caught: Tensor | None = None
        network.register_forward_hook(self._catch)

    def want(self, *, wanted: bool) -> None:
        """Before a step: whether its features will be asked for."""
        self._wanted, self._caught = wanted, None

    def spread(self, tiles: int) -> dict[str, float]:
        """Collapse figures of the first view of each tile.

        None where the network gives no vectors, or too few.
        """
        found = self._caught
        if (
            found is None
            or found.ndim != 2
            or min(len(found), tiles) < _FEWEST
            or not bool(found.isfinite().all())
        ):
            return {}
        return spread(found[:tiles])

    def _catch(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._wanted and isinstance(output, Tensor):
            self._wanted, self._caught = False, output.detach()
