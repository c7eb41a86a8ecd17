"""Losses of dense heads: cross-entropy of every pixel, and Dice where classes are uneven."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

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


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of probabilities and a mask, over the whole batch."""
    found = logits.sigmoid()
    both = 2 * (found * target).sum() + 1
    return 1 - both / (found.sum() + target.sum() + 1)
