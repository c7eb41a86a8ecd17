"""What tasks share that compare places of crops by their values in maps.

Crops come from known places of one tile, so that it is known which places they share, or where a
place of one lies seen from another. Maps are read there by bilinear interpolation. A place is to be
found among the places of all other tiles, and those of the same tile that lie at least two
positions of the map away: without the latter, a map that is constant in each tile would do.
"""

from __future__ import annotations

import math

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

_GRID = 4  # places along a side
PLACES = _GRID * _GRID
_APART = 2.0  # positions of the coarser map from which places of one tile are negatives
_HIDDEN, _OUT = 256, 64  # of a head; the 2048 and 128 of DenseCL are for a ResNet-50's maps


class PlacesSettings(DenseTaskSettings):
    """A task that compares places.

    Attributes:
        temperature: Of its cross entropy.
    """

    temperature: Temperature = 0.2

    def chance_loss(self, tiles: int) -> float:
        """log(N P), if all places take part."""
        return math.log(tiles * PLACES)


class PlacesTask(DenseTask):
    """A head for each stage, by whose output places are compared.

    Args:
        settings: The task.
        backbone: Whose maps are compared.
        px: Side of the crops.
        setting: The name of the settings, for messages.

    Raises:
        ConfigError: The backbone has no such module, or its output is no map.

    Attributes:
        widths: Channels of the map of each stage.
        heads: A `projection` of each.
    """

    settings: PlacesSettings

    def __init__(
        self, settings: PlacesSettings, backbone: nn.Module, px: int, *, setting: str
    ) -> None:
        super().__init__()
        self.settings = settings
        self.widths = map_widths(backbone, settings.stages, px, f"{setting}.stages")
        self.heads = nn.ModuleList(projection(width) for width in self.widths)

    def beside(self, batch: TileBatch) -> Beside:
        """The places of crops are all that is needed of them."""
        return lambda _, places: places


def projection(width: int) -> nn.Sequential:
    """Two linear layers, whose output places are compared by."""
    return nn.Sequential(nn.Linear(width, _HIDDEN), nn.ReLU(inplace=True), nn.Linear(_HIDDEN, _OUT))


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
