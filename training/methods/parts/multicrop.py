"""Shared by methods that compare crops: views, their forward pass, a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from training import augment
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Plan, Views
from training.methods.parts.dense_task import Beside


def _at_least_two(crops: CropSettings) -> CropSettings:
    if crops.count < 2:
        raise ValueError(
            "count must be at least 2: the crops of a tile are compared with each other"
        )
    return crops


Pair = Annotated[CropSettings, AfterValidator(_at_least_two)]


def make_views(
    batch: TileBatch,
    kinds: Sequence[CropSettings],
    colour: ColourSettings,
    plan: Plan,
    beside: Sequence[Beside] = (),
) -> Views:
    """Crops of each tile, each coloured independently and normalised.

    Args:
        batch: The tiles.
        kinds: First kinds[0].count crops are made, then kinds[1].count, and so on. All lie in one
            field of the tile, drawn by kinds[0].field.
        colour: The colour changes.
        plan: Its generator is the source of all random numbers.
        beside: What tasks beside the method need of the crops of the first kind.

    Returns:
        Float [N, 3, px, px] for each crop; after them what the first of `beside` made of each crop
        of the first kind, then the second, and so on.
    """
    rng, source = plan.generator, augment.source_of(batch.tiles)
    made, others = list[Tensor](), [list[Tensor]() for _ in beside]
    within = augment.fields(len(batch.tiles), kinds[0], rng)
    for crop in kinds:
        for _ in range(crop.count):
            places = augment.crop_places(len(batch.tiles), crop, rng, within)
            plain = augment.cut(source, places, crop.px)
            if crop is kinds[0]:
                for found, of in zip(others, beside, strict=True):
                    found.append(of(plain, places))
            view = augment.colours(plain, batch.stains, colour, rng)
            made.append(augment.normalise(view, plan.mean, plan.std))
    return [*made, *chain.from_iterable(others)]


def forward_by_size(network: nn.Module, views: Views) -> Tensor:
    """The network's output for all views, [sum of N, ...], in the order of the views.

    Consecutive views of equal size are one pass.
    """
    out: list[Tensor] = []
    first = 0
    while first < len(views):
        last = first
        while last < len(views) and views[last].shape[-1] == views[first].shape[-1]:
            last += 1
        out.append(network(torch.cat(views[first:last])))
        first = last
    return torch.cat(out)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Update a moving average: average = momentum average + (1 - momentum) network.

    So are running statistics; counters are copied.
    """
    averages = [*average.parameters(), *average.buffers()]
    _move(averages, [*network.parameters(), *network.buffers()], 1 - momentum)


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that follows its weights and running statistics.

    Args:
        network: The network.
        decay: The share of the average that stays at each `update_parameters(network)`.

    Returns:
        The average, without gradients; its first update copies the network.
    """

    @torch.no_grad()
    def update(averages: Any, values: Any, _count: Any) -> None:
        _move(averages, values, 1 - decay)

    made = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    made.requires_grad_(requires_grad=False)
    return made


def _move(averages: Sequence[Tensor], values: Sequence[Tensor], weight: float) -> None:
    """Move each average towards its value by a share of their difference; counters are copied.

    Sharded tensors are moved shard by shard: torch refuses a list of sharded and whole ones.
    """
    pairs = [(_shard_of(a), _shard_of(v)) for a, v in zip(averages, values, strict=True)]
    floats = [(a, v) for a, v in pairs if a.is_floating_point()]
    if floats:
        # one call for all: a GPU needs few kernels
        torch._foreach_lerp_([a for a, _ in floats], [v for _, v in floats], weight)
    for a, v in pairs:
        if not a.is_floating_point():
            a.copy_(v)


def _shard_of(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor, in the same memory; another tensor itself."""
    shard: Tensor = x.to_local() if isinstance(x, DTensor) else x
    return shard
