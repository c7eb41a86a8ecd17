"""Dense contrast: maps of two crops agree where both show the same place of the tile.

PixContrast of Xie et al. 2021 (arXiv:2011.10043, section 3.1) with DenseCL's head and its negatives
from other images (Wang et al. 2021, arXiv:2011.09157). Why not PixPro, of the same paper: its
targets are a momentum encoder's, another pass of every crop, which costs a CPU a third of a step;
DenseCL's queue of negatives needs one too. Both replace what a small batch lacks, but of positions
a batch of 64 tiles has a thousand.

Both crops come from known places of one tile, so correspondence needs no matching by features, as
DenseCL's does, which is arbitrary early in a run. Nor does it round to the nearest position, as the
papers' pixel pairs do, which at a stride of 16 px is wrong by up to half a cell of 16 px: the same
places of the tile, a grid over what both crops show, are read from both maps (places.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.augment import half_sides
from training.methods.parts.places import (
    PLACES,
    PlacesSettings,
    PlacesTask,
    grid,
    matched_by_all,
    read,
    seen_from,
)


class DenseContrastSettings(PlacesSettings):
    """The task of dense contrast."""


class DenseContrast(PlacesTask):
    """DenseCL's dense head, two linear layers, for each stage.

    Args:
        settings: The task.
        backbone: Whose maps are compared.
        px: Side of the crops.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    def __init__(self, settings: DenseContrastSettings, backbone: nn.Module, px: int) -> None:
        super().__init__(settings, backbone, px, setting="method.dense_contrast")

    def loss(self, maps: Mapping[str, Tensor], beside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean of `places.matched` over stages and pairs of crops."""
        pairs = [(a, b) for b in range(len(beside)) for a in range(b)]
        shared = {(a, b): in_both(beside[a], beside[b]) for a, b in pairs}
        found = []
        for head, stage in zip(self.heads, self.settings.stages, strict=True):
            crops = maps[stage].chunk(len(beside))
            for (a, b), same in shared.items():
                z = head(torch.stack([read(crops[a], same.first), read(crops[b], same.second)]))
                places = same.there[:, None].expand(-1, PLACES)
                apart = same.positions_apart(max(maps[stage].shape[-2:]))
                found.append(matched_by_all(z[0], z[1], apart, places, self.settings.temperature))
        losses, shares = (torch.stack(x).mean() for x in zip(*found, strict=True))
        return losses, shares


@dataclass(frozen=True)
class InBoth:
    """Places that two crops of each tile show: a grid over the part that both have.

    Attributes:
        first: Float [N, P, 2], x and y in the first crop, -1..1 from border to border.
        second: The same in the second crop.
        there: Bool [N]: the crops overlap. Where they do not, the places mean nothing.
        half: Float [N, 2]: the larger half side of the two crops along x and y of the tile.
        where: Float [N, P, 2], the places in the tile.
    """

    first: Tensor
    second: Tensor
    there: Tensor
    half: Tensor
    where: Tensor

    def positions_apart(self, side: int) -> Tensor:
        """Distances [N, P, P] of the places, in positions of the larger crop's map of this side."""
        scaled = self.where * (side / 2) / self.half[:, None]
        return (scaled[:, :, None] - scaled[:, None]).square().sum(3).sqrt()


@torch.no_grad()
def in_both(first: Tensor, second: Tensor) -> InBoth:
    """The places that two crops of each tile show.

    Args:
        first: Float [N, 2, 3], places of crops as `augment.crop_places` draws them.
        second: Those of other crops of the same tiles.
    """
    half = torch.stack([half_sides(first), half_sides(second)])
    centre = torch.stack([first, second])[..., 2]
    start, end = (centre - half).amax(0), (centre + half).amin(0)
    where = start[:, None] + (end - start)[:, None] * grid(first.device)
    return InBoth(
        seen_from(first, where),
        seen_from(second, where),
        (end > start).all(1),
        half.amax(0),
        where,
    )
