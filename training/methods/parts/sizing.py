"""The one rule by which heads, temperatures and averages follow batch, corpus and length of a run, where a recipe leaves them open.

Published sizes suit ImageNet (a million images, batch 1,024 and more, 100,000s of steps). A run on a few thousand tiles with batch 64
would never visit most of 65,536 prototypes, and an average with momentum .996 would hardly leave its start.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from training import distributed

log = logging.getLogger(__name__)

LARGE_BATCH = 512  # from here on the papers' own head sizes
# steps from which the teacher's temperature rises to .07, as DINO's of 300 epochs did
LONG_RUN = 30_000


@dataclass(frozen=True)
class Sizes:
    """hidden, out: widths of projector or head. momentum.

    Of the average at the start. teacher_temperature: from, to.
    """

    hidden: int
    out: int
    prototypes: int
    momentum: float
    teacher_temperature: tuple[float, float]


# Widths (hidden, out) of a small and of a large run; the large ones are the papers' (SimCLR's
# hidden layer as wide as ResNet-50).
_WIDTHS = {
    "dino": ((1024, 128), (2048, 256)),
    "simclr": ((512, 128), (2048, 128)),
    "byol": ((1024, 128), (4096, 256)),
}
# Joint batch and tiles below which a method has been seen to learn little, and what helps.
_LEAST = {
    "dino": (32, 500, "a larger data.batch, more tiles, or method simclr"),
    "simclr": (
        32,
        200,
        (
            "a larger data.batch (each tile is distinguished from the others of its batch), or"
            " method byol"
        ),
    ),
    "byol": (16, 200, "a larger data.batch (its BatchNorm needs one), or method simclr"),
}


def sizes_for(method: str, *, batch: int, tiles: int, steps: int) -> Sizes:
    """Sizes of "dino", "simclr" or "byol". batch: over all processes."""
    hidden, out = _WIDTHS[method][batch >= LARGE_BATCH]
    warm = (0.04, 0.07 if steps >= LONG_RUN else 0.04)
    return Sizes(hidden, out, prototypes_for(batch, tiles), momentum_for(steps), warm)


def prototypes_for(batch: int, tiles: int) -> int:
    """Number of prototypes that a run can use.

    A power of two near 8 a sample of the batch, at most a quarter of the tiles.
    """
    wanted = min(8 * batch, tiles / 4, 65536)
    return max(64, 2 ** round(math.log2(max(wanted, 2))))


def momentum_for(steps: int) -> float:
    """Momentum whose memory is a tenth of the run: .996 for long runs, less where .996 would hardly leave the start."""
    return min(0.996, max(0.9, 1 - 10 / max(steps, 1)))


def announce(method: str, *, batch: int, tiles: int, steps: int, values: dict[str, object]) -> None:
    """Say in the log what was chosen, and warn where batch or corpus is too small for the method."""
    if distributed.rank() != 0:
        return
    chosen = ", ".join(f"{k} {v}" for k, v in values.items())
    log.info("%s for batch %d, %d tiles, %d steps: %s", method, batch, tiles, steps, chosen)
    least_batch, least_tiles, remedy = _LEAST[method]
    for name, value, least in (
        ("data.batch", batch, least_batch),
        ("number of tiles", tiles, least_tiles),
    ):
        if value < least:
            log.warning(
                "%s is %d: %s learns little below %d. What helps: %s",
                name,
                value,
                method,
                least,
                remedy,
            )
