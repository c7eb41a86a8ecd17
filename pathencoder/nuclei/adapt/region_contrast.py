"""A vectorised patch contrast for our network.

Inside and outside of each window, as prototypes of what is seen there.

The idea is the paper's (patch_contrast.py): what the network calls nucleus should look alike
everywhere, and unlike what it calls the rest. Here every window of a grid gives one positive and
one negative, weighed by confidence, so nothing is sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def region_contrast(
    logits: Tensor, maps: Tensor, *, window: int = 32, temperature: float = 0.5, most: int = 128
) -> Tensor:
    """InfoNCE over windows: an inside against the other insides (positives) and all outsides (negatives).

    logits [N, h, w] of the nucleus, maps [N, 3, h, w]. Similarity is the negative squared distance of the mean maps over `temperature`.
    Windows in which there is nearly nothing inside or outside are left out; 0 where fewer than two are left.
    """
    inside, outside = _prototypes(torch.sigmoid(logits)[:, None], maps, window)
    if len(inside) < 2:
        return logits.sum() * 0
    inside, outside = inside[:most], outside[:most]
    alike = -torch.cdist(inside, inside).square() / temperature
    unlike = -torch.cdist(inside, outside).square() / temperature
    itself = torch.eye(len(inside), dtype=torch.bool, device=logits.device)
    positive = alike.masked_fill(itself, 0).sum(1) / (len(inside) - 1)
    return (
        torch.cat([alike.masked_fill(itself, -torch.inf), unlike], 1).logsumexp(1) - positive
    ).mean()


def _prototypes(confidence: Tensor, maps: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean maps inside and outside of every window that has both: [K, 3] each."""
    share = functional.avg_pool2d(confidence, window, window // 2)
    mixed = functional.avg_pool2d(confidence * maps, window, window // 2)
    whole = functional.avg_pool2d(maps, window, window // 2)
    inside, outside = mixed / share.clamp_min(1e-3), (whole - mixed) / (1 - share).clamp_min(1e-3)
    both = ((share > 0.02) & (share < 0.98))[:, 0]
    return inside.movedim(1, -1)[both], outside.movedim(1, -1)[both]
