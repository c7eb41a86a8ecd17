"""What the methods that compare crops share.

Making the views, running them through a network, an average that follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from training import augment
from training.augment import ColourSettings, CropSettings
from training.data.loader import TileBatch
from training.methods import Plan, Views


def _two(crops: CropSettings) -> CropSettings:
    if crops.count < 2:
        raise ValueError(
            "count must be at least 2: the crops of a tile are compared with each other"
        )
    return crops


Pair = Annotated[CropSettings, AfterValidator(_two)]  # crops of which every tile needs two or more


def make_views(
    batch: TileBatch, kinds: Sequence[CropSettings], colour: ColourSettings, plan: Plan
) -> Views:
    """kinds[0].count crops of each tile, then kinds[1].count and so on, each coloured by itself and normalised; all in kinds[0].field."""
    rng, made, source = plan.generator, [], augment.source_of(batch.tiles)
    within = augment.fields(len(batch.tiles), kinds[0], rng)
    for crop in kinds:
        for _ in range(crop.count):
            view = augment.colours(
                augment.crops(source, crop, rng, within), batch.stains, colour, rng
            )
            made.append(augment.normalise(view, plan.mean, plan.std))
    return made


def forward_by_size(network: nn.Module, views: Views) -> Tensor:
    """Neighbouring views of equal size go through together.

    The result, [all rows, ...], keeps the order of the views.
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
    """average = momentum average + (1 - momentum) network, running statistics too.

    Counters are copied.
    """
    # a GPU then does them at once
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - momentum)
    for a, n in zip(average.buffers(), network.buffers(), strict=True):
        a.lerp_(n, 1 - momentum) if a.is_floating_point() else a.copy_(n)
