"""Schedules as functions of the step."""

from __future__ import annotations

import math


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From start at step 0 to end at step `steps`, along half a cosine.

    Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983, equation 5, one cycle.
    """
    t = min(max(step / max(steps, 1), 0.0), 1.0)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * t))


def warmup_cosine(peak: float, end: float, step: int, steps: int, warmup: int) -> float:
    """Linear from near 0 to peak over `warmup` steps, then a cosine to end."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return cosine(peak, end, step - warmup, steps - warmup)


def linear(start: float, end: float, step: int, steps: int) -> float:
    """From start to end over `steps` steps, then end."""
    return start + (end - start) * min(max(step / max(steps, 1), 0.0), 1.0)
