"""A contrastive loss over windows for the label-free nuclei network.

After Boserup and Selvan (training/methods/parts/patch_contrast.py): nuclei should look similar
everywhere, and different from the rest. Here every window of a grid gives one prototype of its
nuclei and one of the rest, weighted by the predicted probability, so nothing is sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def region_contrast(
    logits: Tensor, maps: Tensor, *, window: int = 32, temperature: float = 0.5, most: int = 128
) -> Tensor:
    """InfoNCE over windows: the prototypes of nuclei are positives, those of the rest negatives.

    Similarity is the negative squared distance of two prototypes over `temperature`.

    Args:
        logits: [N, h, w] of the nucleus channel.
        maps: [N, 3, h, w], the stain maps.
        window: Side of a window in pixels; windows overlap by half.
        temperature: Of the similarity.
        most: Windows that are used at most.

    Returns:
        The loss. Windows with almost only nuclei, or almost none, are left out; it is 0 if fewer
        than two are left.
    """
    inside, outside = _prototypes(torch.sigmoid(logits)[:, None], maps, window)
    if len(inside) < 2:
        return logits.sum() * 0
    inside, outside = inside[:most], outside[:most]
    to_inside = -torch.cdist(inside, inside).square() / temperature
    to_outside = -torch.cdist(inside, outside).square() / temperature
    itself = torch.eye(len(inside), dtype=torch.bool, device=logits.device)
    positive = to_inside.masked_fill(itself, 0).sum(1) / (len(inside) - 1)
    return (
        torch.cat([to_inside.masked_fill(itself, -torch.inf), to_outside], 1).logsumexp(1)
        - positive
    ).mean()


def _prototypes(confidence: Tensor, maps: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean maps of the nuclei and of the rest of every window that has both: [K, 3] each."""
    share = functional.avg_pool2d(confidence, window, window // 2)
    mixed = functional.avg_pool2d(confidence * maps, window, window // 2)
    whole = functional.avg_pool2d(maps, window, window // 2)
    inside, outside = mixed / share.clamp_min(1e-3), (whole - mixed) / (1 - share).clamp_min(1e-3)
    both = ((share > 0.02) & (share < 0.98))[:, 0]
    return inside.movedim(1, -1)[both], outside.movedim(1, -1)[both]
