"""How inner stages of a CNN become an embedding: the rule `stages:a,b/mean,centre,max`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the spec reads rules, and a spec must not cost an import of torch
    from torch import Tensor

_RULE = re.compile(r"stages:([\w.]+(?:,[\w.]+)*)(?:/(\w+(?:,\w+)*))?")


def centre(maps: Tensor) -> Tensor:
    """Mean over the middle: the inner half of rows and columns, the smaller part where they do not halve. [N, C, h, w] -> [N, C].

    What lies in the middle of a tile is what tiles cut around an object (a cell, a mitotic figure) are about.
    """
    top, left = (min(math.ceil(side / 4), (side - 1) // 2) for side in maps.shape[2:])
    return maps[:, :, top : maps.shape[2] - top, left : maps.shape[3] - left].mean(dim=(2, 3))


def mean(maps: Tensor) -> Tensor:
    """Mean over the whole map. [N, C, h, w] -> [N, C]."""
    return maps.mean(dim=(2, 3))


def largest(maps: Tensor) -> Tensor:
    """The largest value of each channel: what is rare and small shows here. [N, C, h, w] -> [N, C]."""
    return maps.amax(dim=(2, 3))


def peak(maps: Tensor) -> Tensor:
    """The largest mean of 2 x 2 neighbours of each channel.

    Like `largest`, and steadier when a tile's colours change or it is shifted by a few pixels, for
    no single value decides. [N, C, h, w] -> [N, C].
    """
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(maps, (min(2, maps.shape[2]), min(2, maps.shape[3])), stride=1).amax(
        dim=(2, 3)
    )


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean,
    "centre": centre,
    "max": largest,
    "peak": peak,
}
_WORDS = {
    "mean": "mean",
    "centre": "mean of the middle",
    "max": "largest value",
    "peak": "largest mean of 2 x 2 neighbours",
}


@dataclass(frozen=True)
class StageRule:
    """Module paths, and the pools by name that each one's output goes through."""

    stages: tuple[str, ...]
    pools: tuple[str, ...] = ("mean",)

    def embedding(self, maps: Mapping[str, Tensor]) -> Tensor:
        """[N, D] of maps [N, C, h, w] by module path.

        For each pool in turn, every stage's channels. maps: at least those of `stages`.
        """
        import torch

        return torch.cat(
            [POOLS[pool](maps[stage]) for pool in self.pools for stage in self.stages], dim=1
        )

    def __str__(self) -> str:
        """In words, for info and cards."""
        *before, last = (f"the {_WORDS[pool]}" for pool in self.pools)
        pools = f"{', '.join(before)} and {last}" if before else last
        return f"{pools} of each channel after {', '.join(self.stages)}, joined"


def stage_rule(rule: str) -> StageRule | None:
    """A rule read; None for one of another kind, or with a pool that there is not."""
    match = _RULE.fullmatch(rule)
    if not match:
        return None
    stages = tuple(match[1].split(","))
    pools = tuple((match[2] or "mean").split(","))
    return StageRule(stages, pools) if set(pools) <= set(POOLS) else None
