"""Signs of collapse: how different the embeddings of different tiles are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed


@torch.no_grad()
def spread(embeddings: Tensor) -> dict[str, float]:
    """How different the rows of a matrix of embeddings are.

    Args:
        embeddings: Float [N, D].

    Returns:
        feature_std: Mean standard deviation of the coordinates of the unit vectors times sqrt(D): 1
        if they are uniform on the sphere, 0 if they are all equal.
        rankme: Effective rank (RankMe, Garrido et al. 2023, equation 1).
    """
    unit = F.normalize(embeddings.float(), dim=1)
    std = unit.std(0).mean() * unit.shape[1] ** 0.5
    p = torch.linalg.svdvals(embeddings.float() - embeddings.float().mean(0))
    p = p / p.sum() + 1e-7
    return {"feature_std": float(std), "rankme": float(torch.exp(-(p * p.log()).sum()))}


_FEWEST = 8  # fewer tiles give no useful rank


class FirstFeatures:
    """The output of a network for the first views of a step.

    A forward hook keeps it, so that no extra forward pass is needed.
    """

    def __init__(self, network: nn.Module) -> None:
        self._wanted = False
        self._kept: Tensor | None = None
        network.register_forward_hook(self._keep)

    def want(self, *, wanted: bool) -> None:
        """Call before a step: whether to keep its features."""
        self._wanted, self._kept = wanted, None

    @torch.no_grad()
    def spread(self, tiles: int) -> dict[str, float]:
        """`spread` of the features of the first view of each tile of the joint batch.

        All processes must call it together; the rows of all are compared, and the first process
        gets the figures.

        Args:
            tiles: Tiles of the forward pass of this process; its first rows are their first views.

        Returns:
            The figures; empty where the network gives no vectors, too few, or values that are not
            finite, and in all processes but the first.
        """
        found = self._kept
        if found is None or found.ndim != 2 or len(found) < tiles:
            return {}
        rows = distributed.gather(found[:tiles].float())
        if distributed.rank() != 0 or len(rows) < _FEWEST or not bool(rows.isfinite().all()):
            return {}
        return spread(rows)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._wanted and isinstance(output, Tensor):
            self._wanted, self._kept = False, output.detach()
