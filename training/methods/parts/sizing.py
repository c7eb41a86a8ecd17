"""Sizes of heads, temperatures and averages for a run, where its recipe leaves them open.

Published sizes suit ImageNet: a million images, batches of 1,024 and more, 100,000s of steps. A
run on a few thousand tiles with batches of 64 would never visit most of 65,536 prototypes, and an
average with momentum .996 would hardly leave its start.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from training import distributed
from training.methods import Plan

log = logging.getLogger(__name__)

LARGE_BATCH = 512  # from this batch on the head sizes of the papers
# From this many steps on the teacher's temperature rises to .07, as in DINO's 300 epochs.
LONG_RUN = 30_000


@dataclass(frozen=True)
class Sizes:
    """The sizes of one run.

    Attributes:
        hidden: Width of the hidden layers of the projector or head.
        out: Width of its output or bottleneck.
        prototypes: Number of prototypes.
        momentum: Of the average, at the start of the run.
        teacher_temperature: At the start, and after the warm-up.
    """

    hidden: int
    out: int
    prototypes: int
    momentum: float
    teacher_temperature: tuple[float, float]


@dataclass(frozen=True)
class Sizing:
    """The choice of sizes for one method.

    Attributes:
        method: Its name.
        small: Widths (hidden, out) below a batch of LARGE_BATCH.
        large: The same from there on, those of the paper.
        least_batch: The batch below which the method was seen to learn little.
        least_tiles: The same for the number of tiles.
        remedy: What helps in both cases.
    """

    method: str
    small: tuple[int, int]
    large: tuple[int, int]
    least_batch: int
    least_tiles: int
    remedy: str

    def sizes(self, plan: Plan) -> Sizes:
        """The sizes that suit a run."""
        hidden, out = self.large if plan.batch >= LARGE_BATCH else self.small
        return Sizes(
            hidden=hidden,
            out=out,
            prototypes=prototypes_for(plan.batch, plan.tiles),
            momentum=momentum_for(plan.steps),
            teacher_temperature=(0.04, 0.07 if plan.steps >= LONG_RUN else 0.04),
        )

    def announce(self, plan: Plan, chosen: dict[str, object]) -> None:
        """Log what was chosen; warn where batch or corpus is too small for the method."""
        if distributed.rank() != 0:
            return
        listed = ", ".join(f"{name} {value}" for name, value in chosen.items())
        run = (plan.batch, plan.tiles, plan.steps)
        log.info("%s for batch %d, %d tiles, %d steps: %s", self.method, *run, listed)
        for name, value, least in (
            ("data.batch", plan.batch, self.least_batch),
            ("number of tiles", plan.tiles, self.least_tiles),
        ):
            if value < least:
                words = "%s is %d: %s learns little below %d. What helps: %s"
                log.warning(words, name, value, self.method, least, self.remedy)


def prototypes_for(batch: int, tiles: int) -> int:
    """Number of prototypes that a run can use.

    A power of two, near 8 for each sample of the batch and at most a quarter of the tiles.
    """
    wanted = min(8 * batch, tiles / 4, 65536)
    return max(64, 1 << round(math.log2(max(wanted, 2))))


def momentum_for(steps: int) -> float:
    """Momentum of an average over a tenth of the run: .996 for long runs, less for short ones."""
    return min(0.996, max(0.9, 1 - 10 / max(steps, 1)))
