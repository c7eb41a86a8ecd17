"""Losses of dense heads: cross-entropy of every pixel, and Dice where classes are uneven."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, cross_entropy

_NEAR_POINTS = 10.0  # weight of the top of a Gaussian against the background


def inside_and_contour(logits: Tensor, target: Tensor) -> Tensor:
    """Both channels by cross-entropy and Dice: contours are few pixels.

    Args:
        logits: [N, 2, H, W].
        target: [N, 2, H, W], 0..1, interpolated.

    Returns:
        A number.
    """
    sharp = (target > 0.5).float()
    both = dice(logits[:, 0], sharp[:, 0]) + dice(logits[:, 1], sharp[:, 1])
    return 2 * binary_cross_entropy_with_logits(logits, sharp) + both


def inside_and_depth(logits: Tensor, target: Tensor) -> Tensor:
    """The inside by cross-entropy and Dice, the depth by cross-entropy.

    Args:
        logits: [N, 2, H, W].
        target: [N, 2, H, W], 0..1, interpolated.

    Returns:
        A number.
    """
    inside = (target[:, 0] > 0.5).float()
    depth = binary_cross_entropy_with_logits(logits[:, 1], target[:, 1].clamp(0, 1))
    first = binary_cross_entropy_with_logits(logits[:, 0], inside)
    return first + dice(logits[:, 0], inside) + depth


def points(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy to the heights of Gaussians, with more weight near points.

    Args:
        logits: [N, 1, h, w].
        target: [N, 1, H, W] of full resolution, 0..1.

    Returns:
        A number.
    """
    target = avg_pool2d(target, target.shape[-1] // logits.shape[-1]).clamp(0, 1)
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * (1 + _NEAR_POINTS * target)).mean()


def classes(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of every pixel with a class, and Dice averaged over the classes.

    Args:
        logits: [N, C, H, W].
        target: [N, C, H, W]: 1 for the class of a pixel, interpolated; 0 for all classes where the
            class is not known.

    Returns:
        A number; 0 where no pixel has a class.
    """
    known = target.sum(1) > 0.5
    number = target.argmax(1)
    each = cross_entropy(logits, number, reduction="none")
    first = (each * known).sum() / known.sum().clamp(min=1)
    sharp = torch.zeros_like(logits).scatter_(1, number[:, None], 1) * known[:, None]
    found = logits.softmax(1) * known[:, None]
    axes = (0, 2, 3)
    both, total = (found * sharp).sum(axes), found.sum(axes) + sharp.sum(axes)
    present = sharp.sum(axes) > 0
    share = (2 * both + 1) / (total + 1)
    return first + ((1 - share) * present).sum() / present.sum().clamp(min=1)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of probabilities and a mask, over the whole batch."""
    found = logits.sigmoid()
    both = 2 * (found * target).sum() + 1
    return 1 - both / (found.sum() + target.sum() + 1)
