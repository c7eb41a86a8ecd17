"""Our label-free training: rounds of learning from the nuclei that a teacher is sure of, on crops in which those look harder than they are.

Round 1 takes the mean stain map as its teacher, each later round the network of the round before. Nothing is left to choose afterwards:
the anchor fixes the nucleus channel and its polarity, a one-cycle schedule ends at a fixed step, and the level of the logit is set so that
on the training images it calls as many pixels nucleus as the mean stain map does: networks of different seeds differ in level first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pathencoder.errors import ConfigError
from pathencoder.nuclei import variations
from pathencoder.nuclei.contrast import region_contrast
from pathencoder.nuclei.lessons import Lesson, Rule, make_lesson, mean_stain
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.variations import Variation
from pathencoder.stain import Array

log = logging.getLogger(__name__)
SHARE = 0.15  # weight of the network's logit beside the stain map; chosen on labelled images of MoNuSeg's train part
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on beside its images and its seed."""

    rounds: tuple[int, ...] = (150, 350)  # steps of each
    crop: int = 128  # px of 0.5 um
    batch: int = 8
    rate: float = 6e-3  # highest learning rate of the one-cycle schedule
    anchor: float = 1.0  # weight of the loss on the teacher's sure nuclei
    contrast: float = 0.0  # weight of the loss that sets inside and outside apart (contrast.py)
    averaged: float = 0.3  # share of the last round's steps, its end, over which the weights are averaged
    variation: Variation = field(default_factory=Variation)
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if not self.rounds or min(self.rounds) < 2 or self.batch < 1 or self.crop < 32:
            raise ConfigError(
                f"rounds {self.rounds} of at least 2 steps, batch {self.batch} of at least 1, crop {self.crop} of at least 32 px"
            )
        if self.anchor == self.contrast == 0:
            raise ConfigError("anchor and contrast are both 0: there is nothing to learn from")
        if not 0 <= self.averaged <= 1:
            raise ConfigError(f"averaged {self.averaged} is a share of the steps, between 0 and 1")


def train(images: Sequence[Array], recipe: Recipe | None = None, *, seed: int = 0, progress: Progress | None = None) -> NucleiNetwork:
    """Train on the stain maps float32 [3, h, w] of unlabelled images (maps.py); any number, any sizes. Returns it in eval mode.

    Raises ConfigError where no object in any image passes for a nucleus.
    """
    recipe = recipe or Recipe()
    tell = progress or (lambda done, total: None)
    network: NucleiNetwork | None = None
    for number, steps in enumerate(recipe.rounds):
        lessons = _lessons(images, network, recipe.rule)
        log.info("round %d: %d sure nuclei in %d images", number + 1, sum(len(np.unique(x.labels)) - 1 for x in lessons), len(lessons))
        part = _Part(sum(recipe.rounds[:number]), sum(recipe.rounds), tell)
        averaged = recipe.averaged if number == len(recipe.rounds) - 1 else 0.0
        network = _round(lessons, steps, replace(recipe, averaged=averaged), seed + 1_000_003 * number, part)
    if network is None:
        raise ConfigError("a recipe without rounds trains nothing")
    set_level(network, images)
    return network


@torch.no_grad()
def set_level(network: NucleiNetwork, images: Sequence[Array]) -> None:
    """Shift the nucleus logit so that over these images as many pixels lie above 0 as of the mean stain map, in place."""
    share = np.concatenate([mean_stain(m)[::2, ::2].ravel() for m in images]) > 0
    logits = np.concatenate([predict(network, m)[0][::2, ::2].ravel() for m in images])
    assert network.head.bias is not None
    network.head.bias[0] -= float(np.quantile(logits, 1 - share.mean()))


@dataclass(frozen=True)
class _Part:
    """Progress of one round as progress of the whole."""

    before: int
    total: int
    tell: Progress

    def __call__(self, steps: int) -> None:
        self.tell(self.before + steps, self.total)


@torch.inference_mode()
def predict(network: NucleiNetwork, maps: Array) -> Array:
    """Nucleus logit and depth logit float32 [2, h, w] of one image's maps [3, h, w]."""
    batch = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None].contiguous(memory_format=torch.channels_last)
    out: Array = network(batch)[0].numpy()
    return out


def nucleus_scores(network: NucleiNetwork, maps: Array) -> Array:
    """The score map float32 [h, w] that nuclei are cut from (above 0: nucleus): the mean stain map, corrected by the network.

    The network sees outlines and no level, the stain map sees the level alone; their sum errs less than either.
    """
    scores: Array = mean_stain(maps) + np.float32(SHARE) * predict(network, maps)[0]
    return scores


def _lessons(images: Sequence[Array], network: NucleiNetwork | None, rule: Rule) -> list[Lesson]:
    scores = (mean_stain(m) if network is None else predict(network, m)[0] for m in images)
    found = [make_lesson(m, s, rule) for m, s in zip(images, scores, strict=True)]
    kept = [x for x in found if x is not None]
    if not kept:
        raise ConfigError(f"nothing in {len(images)} image(s) looks like a nucleus: give images with nuclei, and their --mpp")
    return kept


def _round(lessons: list[Lesson], steps: int, recipe: Recipe, seed: int, tell: Callable[[int], None]) -> NucleiNetwork:
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NucleiNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps)
    average = AveragedModel(network, use_buffers=True)  # type: ignore[no-untyped-call]
    for step in range(steps):
        maps, target = _batch(lessons, recipe, rng)
        loss = _loss(network(maps), maps, target, recipe)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step >= min((1 - recipe.averaged) * steps, steps - 1):
            average.update_parameters(network)
        tell(step + 1)
    return cast(NucleiNetwork, average.module).eval()


def _batch(lessons: list[Lesson], recipe: Recipe, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    crops = [variations.draw(lessons, recipe.crop, recipe.variation, rng) for _ in range(recipe.batch)]
    maps, target = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
    return maps.contiguous(memory_format=torch.channels_last), target


def _loss(out: Tensor, maps: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    loss = out.new_zeros(())
    if recipe.anchor:
        loss = loss + recipe.anchor * anchor_loss(out, target)
    if recipe.contrast:
        loss = loss + recipe.contrast * region_contrast(out[:, 0], maps)
    return loss


def anchor_loss(out: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy and Dice of the nucleus channel, squared error of the depth channel.

    out [N, 2, h, w] logits; target [N, 3, h, w]: nucleus, depth, weight.
    """
    nucleus, depth, weight = target.unbind(1)
    total = weight.sum().clamp_min(1)
    entropy = (functional.binary_cross_entropy_with_logits(out[:, 0], nucleus, reduction="none") * weight).sum() / total
    p = torch.sigmoid(out[:, 0])
    overlap = (2 * (weight * p * nucleus).sum() + 1) / ((weight * (p + nucleus)).sum() + 1)
    deviation = ((torch.sigmoid(out[:, 1]) - depth).square() * weight).sum() / total
    return entropy + 1 - overlap + 2 * deviation
