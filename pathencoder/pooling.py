"""Pool inner stages of a CNN to an embedding: the rule `stages:a,b/mean,centre,max`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the spec reads rules, and must not import torch
    from torch import Tensor

_RULE = re.compile(r"stages:([\w.]+(?:,[\w.]+)*)(?:/(\w+(?:,\w+)*))?")


def centre(maps: Tensor) -> Tensor:
    """Mean over the centre, [N, C, h, w] -> [N, C], for tiles cut around an object (a cell).

    The centre is the inner half of rows and columns, rounded down.
    """
    top, left = (min(math.ceil(side / 4), (side - 1) // 2) for side in maps.shape[2:])
    return maps[:, :, top : maps.shape[2] - top, left : maps.shape[3] - left].mean(dim=(2, 3))


def mean(maps: Tensor) -> Tensor:
    """Mean over the whole map, [N, C, h, w] -> [N, C]."""
    return maps.mean(dim=(2, 3))


def largest(maps: Tensor) -> Tensor:
    """Maximum of each channel, [N, C, h, w] -> [N, C]: sensitive to rare and small structures."""
    return maps.amax(dim=(2, 3))


def peak(maps: Tensor) -> Tensor:
    """Maximum of the means of 2 x 2 neighbours of each channel, [N, C, h, w] -> [N, C].

    Like `largest`, but more stable when colours change or the tile is shifted by a few pixels,
    since no single value decides.
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
    """A pooling rule.

    Attributes:
        stages: Paths of modules.
        pools: Names of the pools that are applied to the output of each module.
    """

    stages: tuple[str, ...]
    pools: tuple[str, ...] = ("mean",)

    def embedding(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Apply the rule.

        Args:
            maps: [N, C, h, w] by module path; at least those of `stages`.

        Returns:
            [N, D]: for each pool in order, the channels of every stage.
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
    """Parse a rule; None for another kind of rule, or one with an unknown pool."""
    match = _RULE.fullmatch(rule)
    if not match:
        return None
    stages = tuple(match[1].split(","))
    pools = tuple((match[2] or "mean").split(","))
    return StageRule(stages, pools) if set(pools) <= set(POOLS) else None
