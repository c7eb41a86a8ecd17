"""Context prediction at two magnifications: what lies around one crop, in a larger one of the tile.

The smaller of two crops is magnified more. From its map, pooled to 2 x 2 so that it keeps which
side is which, and from where a place outside of it lies, a network of two layers predicts what the
larger crop's map holds at that place. The prediction has to be found among the maps' values at
other places and in other tiles, as in contrastive predictive coding (van den Oord et al. 2018,
arXiv:1807.03748, equation 4). The task is that of Doersch et al. 2015 (arXiv:1505.05192), who
distinguish eight neighbours of equal magnification. The smaller crop does not show the place, so
its map must say in what kind of tissue it lies, not only what it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment import half_sides
from training.methods.parts.places import (
    PLACES,
    PlacesSettings,
    PlacesTask,
    grid,
    matched_by_all,
    projection,
    read,
    seen_from,
)

_POOLED = 2  # positions along a side of the smaller crop's map
_WHERE = 3  # x, y and the ratio of the crops' sides


class ContextSettings(PlacesSettings):
    """The task of context prediction."""


class Context(PlacesTask):
    """A predictor for each stage, beside the projection.

    Args:
        settings: The task.
        backbone: Whose maps are compared.
        px: Side of the crops.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    def __init__(self, settings: ContextSettings, backbone: nn.Module, px: int) -> None:
        super().__init__(settings, backbone, px, setting="method.context")
        self.predictors = nn.ModuleList(
            projection(width * _POOLED * _POOLED + _WHERE) for width in self.widths
        )

    def loss(self, maps: Mapping[str, Tensor], beside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean of `places.matched` over stages and pairs of crops."""
        pairs = [(a, b) for b in range(len(beside)) for a in range(b)]
        found = []
        for a, b in pairs:
            around = surroundings(beside[a], beside[b])
            for i, stage in enumerate(self.settings.stages):
                crops = maps[stage].chunk(len(beside))
                found.append(self._found(i, around, crops[a], crops[b]))
        losses, shares = (torch.stack(x).mean() for x in zip(*found, strict=True))
        return losses, shares

    def _found(self, i: int, around: Around, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        inner, outer = around.ordered(a, b)
        pooled = F.adaptive_avg_pool2d(inner, _POOLED).flatten(1)
        asked = torch.cat([pooled[:, None].expand(-1, PLACES, -1), around.asked()], 2)
        predicted = self.predictors[i](asked)
        there = self.heads[i](read(outer, around.places))
        apart = around.positions_apart(max(outer.shape[-2:]))
        return matched_by_all(predicted, there, apart, around.outside, self.settings.temperature)


@dataclass(frozen=True)
class Around:
    """Places of the larger of two crops of each tile, seen from the smaller one.

    Attributes:
        first_inside: Bool [N]: the first crop is the smaller one.
        places: Float [N, P, 2], x and y in the larger crop, -1..1 from border to border.
        seen: Float [N, P, 2], the same places in the smaller crop's coordinates.
        outside: Bool [N, P]: the smaller crop does not show the place.
        ratio: Float [N]: log2 of the ratio of their sides, at least 0.
    """

    first_inside: Tensor
    places: Tensor
    seen: Tensor
    outside: Tensor
    ratio: Tensor

    def ordered(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the two crops, those of the smaller one of each tile first."""
        return _ordered(self.first_inside, first, second)

    def asked(self) -> Tensor:
        """What the predictor is given of the places [N, P, 3]."""
        ratio = self.ratio[:, None, None].expand(-1, PLACES, 1)
        return torch.cat([self.seen, ratio], 2)

    def positions_apart(self, side: int) -> Tensor:
        """Distances [N, P, P] of the places, in positions of the larger crop's map of this side."""
        scaled = self.places * (side / 2)
        return (scaled[:, :, None] - scaled[:, None]).square().sum(3).sqrt()


@torch.no_grad()
def surroundings(first: Tensor, second: Tensor) -> Around:
    """The places of the larger of two crops of each tile, and which of them the smaller one lacks.

    Args:
        first: Float [N, 2, 3], places of crops as `augment.crop_places` draws them.
        second: Those of other crops of the same tiles.
    """
    sides = [half_sides(x).log2().mean(1) for x in (first, second)]
    first_inside = sides[0] <= sides[1]
    inner, outer = _ordered(first_inside, first, second)
    places = (2 * grid(first.device) - 1).expand(len(first), -1, -1)
    # sums, since autocast would round a product
    where = (outer[:, None, :, :2] * places[:, :, None]).sum(3) + outer[:, None, :, 2]
    seen = seen_from(inner, where)
    return Around(first_inside, places, seen, (seen.abs() > 1).any(2), (sides[0] - sides[1]).abs())


def _ordered(first_inside: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    chosen = first_inside.view(-1, *[1] * (first.ndim - 1))
    return torch.where(chosen, first, second), torch.where(chosen, second, first)
