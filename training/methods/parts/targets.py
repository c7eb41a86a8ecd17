"""From a teacher's logits to its targets without collapse: centring or Sinkhorn-Knopp."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.methods.parts.precision import in_fp32


class Centring(nn.Module):
    """Subtracts a moving mean of the logits, so that no prototype dominates.

    A low temperature keeps the targets from being uniform (DINO, Caron et al. 2021,
    arXiv:2104.14294, section 3.1).
    """

    center: Tensor

    def __init__(self, prototypes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(1, prototypes))

    @torch.no_grad()
    @in_fp32
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Logits [n, K] to distributions [n, K].

        In training the centre is updated afterwards, by the rows of all processes (equation 4).
        """
        targets = F.softmax((logits - self.center) / temperature, dim=1)
        if self.training:
            rows = distributed.total(logits.new_tensor([float(len(logits))])).clamp(min=1)
            self.center.lerp_(
                distributed.total(logits.sum(0, keepdim=True)) / rows, 1 - self.momentum
            )
        return targets


class Sinkhorn(nn.Module):
    """Sinkhorn-Knopp: every prototype gets the same share of the joint batch.

    SwAV, Caron et al. 2020, arXiv:2006.09882, section 3.1; used instead of centring by DINOv2,
    arXiv:2304.07193, section 4.
    """

    def __init__(self, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Logits [n, K] to distributions [n, K]."""
        return sinkhorn(logits, temperature=temperature, iterations=self.iterations)


@torch.no_grad()
@in_fp32
def sinkhorn(logits: Tensor, *, temperature: float, iterations: int) -> Tensor:
    """Targets by alternately scaling the columns and the rows of exp(logits / temperature).

    Args:
        logits: Float [n, K] of this process.
        temperature: Of the teacher.
        iterations: How often columns and rows are scaled.

    Returns:
        [n, K] whose rows sum to 1 and whose columns sum, over all processes, to nearly rows / K.
    """
    # against overflow; a constant changes nothing
    q = torch.exp((logits - distributed.largest(logits)) / temperature)
    for _ in range(iterations):
        q = q / distributed.total(q.sum(0, keepdim=True)).clamp(min=1e-30)
        q = q / q.sum(1, keepdim=True).clamp(min=1e-30)
    return q
