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


def warmup_constant(
    peak: float, end: float, step: int, steps: int, *, warmup: int, cooldown: int
) -> float:
    """Linear from near 0 to peak over `warmup` steps, then peak, then linear to end.

    The warm-up, stable, decay schedule of Hu et al. 2024, MiniCPM, arXiv:2404.06395, equation 1,
    with a linear decay (Haegele et al. 2024, arXiv:2405.18392). Until the decay the rate does not
    depend on `steps`, so that a run can be lengthened.

    Args:
        peak: The rate between warm-up and cooldown.
        end: The rate at step `steps`.
        step: The step.
        steps: Steps of the run.
        warmup: Steps of the warm-up.
        cooldown: Steps of the decay, the last ones of the run.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return linear(peak, end, step - (steps - cooldown), cooldown)


def linear(start: float, end: float, step: int, steps: int) -> float:
    """From start to end over `steps` steps, then end."""
    return start + (end - start) * min(max(step / max(steps, 1), 0.0), 1.0)
