"""Dense contrast: maps of two crops agree where both show the same place of the tile.

PixContrast of Xie et al. 2021 (arXiv:2011.10043, section 3.1) with DenseCL's head and its negatives
from other images (Wang et al. 2021, arXiv:2011.09157). Why not PixPro, of the same paper: its
targets are a momentum encoder's, another pass of every crop, which costs a CPU a third of a step;
DenseCL's queue of negatives needs one too. Both replace what a small batch lacks, but of positions
a batch of 64 tiles has a thousand.

Both crops come from known places of one tile, so correspondence needs no matching by features, as
DenseCL's does, which is arbitrary early in a run. Nor does it round to the nearest position, as the
papers' pixel pairs do, which at a stride of 16 px is wrong by up to half a cell of 16 px: the same
places of the tile, a grid over what both crops show, are read from both maps by bilinear
interpolation. Negatives are the places of all other tiles, and those of the same tile that lie at
least two positions away: without the latter, a map that is constant in each tile would do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.augment import half_sides
from training.bounds import Temperature
from training.data.loader import TileBatch
from training.methods.parts.dense_task import Beside, DenseTask, DenseTaskSettings
from training.methods.parts.feature_maps import map_widths
from training.methods.parts.precision import in_fp32

_GRID = 4  # places along a side of what both crops show
PLACES = _GRID * _GRID
_APART = 2.0  # positions of the coarser map from which places of one tile are negatives
_HIDDEN, _OUT = 256, 64  # of the head; the papers' 2048 and 128 are for a ResNet-50's maps


class DenseContrastSettings(DenseTaskSettings):
    """The task of dense contrast.

    Attributes:
        temperature: Of its cross entropy.
    """

    temperature: Temperature = 0.2

    def chance_loss(self, tiles: int) -> float:
        """log(N P), if all crops of a tile overlap."""
        return math.log(tiles * PLACES)


class DenseContrast(DenseTask):
    """DenseCL's dense head, two linear layers, for each stage.

    Args:
        settings: The task.
        backbone: Whose maps are compared.
        px: Side of the crops.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.
    """

    settings: DenseContrastSettings

    def __init__(self, settings: DenseContrastSettings, backbone: nn.Module, px: int) -> None:
        super().__init__()
        self.settings = settings
        widths = map_widths(backbone, settings.stages, px, "method.dense_contrast.stages")
        self.heads = nn.ModuleList(projection(width) for width in widths)

    def beside(self, batch: TileBatch) -> Beside:
        """The places of crops are all that is needed of them."""
        return lambda _, places: places

    def loss(self, maps: Mapping[str, Tensor], beside: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The mean of `matched` over stages and pairs of crops."""
        pairs = [(a, b) for b in range(len(beside)) for a in range(b)]
        shared = {(a, b): in_both(beside[a], beside[b]) for a, b in pairs}
        found = []
        for head, stage in zip(self.heads, self.settings.stages, strict=True):
            crops = maps[stage].chunk(len(beside))
            for (a, b), same in shared.items():
                z = head(torch.stack([read(crops[a], same.first), read(crops[b], same.second)]))
                apart = same.positions_apart(max(maps[stage].shape[-2:]))
                found.append(self._matched(z, apart, same.there))
        losses, shares = (torch.stack(x).mean() for x in zip(*found, strict=True))
        return losses, shares

    def _matched(self, z: Tensor, apart: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        places = there[:, None].expand(-1, PLACES)
        return matched_by_all(z[0], z[1], apart, places, self.settings.temperature)


def projection(width: int) -> nn.Sequential:
    """Two linear layers, whose output places are compared by."""
    return nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, _OUT))


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


def grid(device: torch.device) -> Tensor:
    """Places [1, P, 2] in the middle of the cells of a square, whose corners are 0, 0 and 1, 1."""
    steps = (torch.arange(_GRID, device=device) + 0.5) / _GRID
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), 2).view(1, PLACES, 2)


def seen_from(places: Tensor, where: Tensor) -> Tensor:
    """Places of the tile [N, P, 2] in a crop's coordinates, by the inverse of its affine map."""
    # the inverse of a flip or turn is its transpose; sums, since autocast would round a product
    away = (where - places[:, None, :, 2]) / half_sides(places).square()[:, None]
    return (away[..., None] * places[:, None, :, :2]).sum(2)


@in_fp32
def read(maps: Tensor, where: Tensor) -> Tensor:
    """Values of maps [N, C, h, w] at places [N, P, 2] of their crops, -1..1: [N, P, C]."""
    found = F.grid_sample(
        maps, where[:, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[:, :, 0].transpose(1, 2)


def matched_by_all(
    first: Tensor, second: Tensor, apart: Tensor, valid: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """`matched` among the tiles of all processes.

    Args:
        first: As of `matched`.
        second: As of `matched`.
        apart: Float [N, P, P], distances of the places of a tile, in positions of its map.
        valid: As of `matched`.
        temperature: As of `matched`.
    """
    parts = (first, second, (apart < _APART).float(), valid.float())
    a, b, near, there = (distributed.gather(x) for x in parts)
    return matched(a, b, near > 0, there > 0, temperature=temperature)


@in_fp32
def matched(
    first: Tensor, second: Tensor, near: Tensor, valid: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Cross entropy of finding each place of one crop among the places of the other crops.

    Args:
        first: Float [N, P, D], projections of the places in the first crop of each tile.
        second: Float [N, P, D], those of the same places in the second crop.
        near: Bool [N, P, P]: places of a tile that are too near each other to be negatives.
        valid: Bool [N, P]: the places that take part.
        temperature: Of the softmax.

    Returns:
        The mean of both directions, and the share of places whose partner is the most similar one
        of those that are compared. The loss is log(N P) where all projections are equal, whatever
        the number of places that are compared. Without a valid place both are 0.
    """
    tiles, places = first.shape[:2]
    count = tiles * places
    a, b = (F.normalize(x.flatten(0, 1), dim=1) for x in (first, second))
    own = torch.arange(count, device=a.device)
    rows = valid.flatten()
    out = ~(rows[:, None] & rows)
    blocks = out.view(tiles, places, tiles, places)
    each = torch.arange(tiles, device=a.device)
    blocks[each, :, each] |= near
    out[own, own] = False
    logits = (a @ b.T / temperature).masked_fill(out, float("-inf"))
    missing = torch.log(count / (~out).sum(1).float())
    total = rows.sum().clamp(min=1)
    losses = [F.cross_entropy(x, own, reduction="none") + missing for x in (logits, logits.T)]
    found = (logits.detach().argmax(1) == own).float()
    return (torch.stack(losses).mean(0) * rows).sum() / total, (found * rows).sum() / total
