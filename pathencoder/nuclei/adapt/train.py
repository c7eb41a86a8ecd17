"""Label-free training of the nuclei network: rounds of training on pseudo-labels.

The teacher of round 1 is the mean stain map, that of each later round the network of the round
before. Training crops are made harder than the images (variations.py). Nothing has to be chosen
afterwards: the pseudo-labels fix the nucleus channel and its sign, a one-cycle schedule ends at a
fixed step, and the bias of the logit is set so that it marks as many pixels of the training images
as the mean stain map does (networks of different seeds differ mostly in this level).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pathencoder.errors import ConfigError
from pathencoder.nuclei.adapt import variations
from pathencoder.nuclei.adapt.checkpoint import (
    EVERY,
    Checkpoint,
    Stopped,
    Weights,
    key_of,
    random_state,
    restore_random,
)
from pathencoder.nuclei.adapt.pseudo_labels import PseudoLabels, Rule, make_pseudo_labels
from pathencoder.nuclei.adapt.region_contrast import region_contrast
from pathencoder.nuclei.adapt.variations import Variation
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.scores import mean_stain, predict
from pathencoder.seeds import checked_seed
from pathencoder.stain import Array

log = logging.getLogger(__name__)
# of the working scale: 48 fields of 500 um; all steps together see 65 Mpx
_MOST_PIXELS = 12_000_000
Progress = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Recipe:
    """Everything that a training depends on besides its images and its seed.

    Attributes:
        rounds: Steps of each round.
        crop: Side of a training crop in pixels of 0.5 um.
        batch: Crops of one step.
        rate: Highest learning rate of the one-cycle schedule.
        anchor: Weight of the loss on the pseudo-labels.
        contrast: Weight of the contrastive loss (region_contrast.py).
        averaged: Share of the last round's steps, at its end, over which weights are averaged.
        variation: How crops are varied.
        rule: When an object counts as a nucleus.
    """

    rounds: tuple[int, ...] = (150, 350)
    crop: int = 128
    batch: int = 8
    rate: float = 6e-3
    anchor: float = 1.0
    contrast: float = 0.0
    averaged: float = 0.3
    variation: Variation = field(default_factory=Variation)
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if not self.rounds or min(self.rounds) < 2 or self.batch < 1 or self.crop < 32:
            raise ConfigError(
                f"rounds {self.rounds} of at least 2 steps, batch {self.batch} of at least 1, crop"
                f" {self.crop} of at least 32 px"
            )
        if self.anchor == self.contrast == 0:
            raise ConfigError("anchor and contrast are both 0: there is nothing to learn from")
        if not 0 <= self.averaged <= 1:
            raise ConfigError(f"averaged {self.averaged} is a share of the steps, between 0 and 1")


def train(
    images: Sequence[Array],
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> NucleiNetwork:
    """Train on the stain maps of unlabelled images (maps.py).

    Args:
        images: float32 [3, h, w] at the working scale; any number, any sizes. Of more than
            12 Mpx in total, only the centre of each is used.
        recipe: The settings. None: the defaults.
        seed: Of all random numbers.
        progress: Called with the completed and the total number of steps, first with those of an
            interrupted run (0 if there is none).
        checkpoint: A file that holds the state of every 20th step: the same call resumes an
            interrupted one. Deleted at the end.

    Returns:
        The network, in eval mode.

    Raises:
        ConfigError: No object in any image counts as a nucleus, or the seed does not fit.
        StoreError: The checkpoint cannot be written.
    """
    seed = checked_seed(seed)
    recipe, report = recipe or Recipe(), progress or (lambda done, total: None)
    images = _limited(images)
    kept = Checkpoint(checkpoint, key_of(images, repr(recipe), seed)) if checkpoint else None
    stopped = kept.read() if kept else None
    network = _network_of(stopped.teacher) if stopped else None
    done = sum(recipe.rounds[: stopped.number]) + stopped.step if stopped else 0
    report(done, sum(recipe.rounds))
    for number in range(stopped.number if stopped else 0, len(recipe.rounds)):
        begun = stopped if stopped and number == stopped.number else None
        network = _train_round(images, network, recipe, number, seed, begun, kept, report)
    if network is None:
        raise ConfigError("a recipe without rounds trains nothing")
    set_level(network, images)
    if kept:
        kept.remove()
    return network


def _train_round(
    images: Sequence[Array],
    teacher: NucleiNetwork | None,
    recipe: Recipe,
    number: int,
    seed: int,
    begun: Stopped | None,
    kept: Checkpoint | None,
    report: Progress,
) -> NucleiNetwork:
    """One round of training under a teacher, from its start or from a saved state."""
    samples = _samples(images, teacher, recipe.rule)
    nuclei = sum(len(np.unique(x.labels)) - 1 for x in samples)
    log.info("round %d: %d confident nuclei in %d images", number + 1, nuclei, len(samples))
    averaged = recipe.averaged if number == len(recipe.rounds) - 1 else 0.0
    steps, before = recipe.rounds[number], sum(recipe.rounds[:number])
    current = _Round(samples, steps, replace(recipe, averaged=averaged), seed + 1_000_003 * number)
    if begun:
        current.restore(begun.state)
    for step in range(begun.step if begun else 0, steps):
        current.step(step)
        if kept and (step + 1) % EVERY == 0:
            weights = teacher.state_dict() if teacher else None
            kept.write(Stopped(number, step + 1, weights, current.state()))
        report(before + step + 1, sum(recipe.rounds))
    return cast(NucleiNetwork, current.average.module).eval()


def _network_of(weights: Weights | None) -> NucleiNetwork | None:
    if weights is None:
        return None
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        network = NucleiNetwork()
    network.load_state_dict(weights)
    return network.eval()


def _limited(images: Sequence[Array]) -> list[Array]:
    """The images, or the centre of each if they have more pixels than a training uses."""
    pixels = sum(m.shape[1] * m.shape[2] for m in images)
    if pixels <= _MOST_PIXELS:
        return list(images)
    side = max(256, int((_MOST_PIXELS / len(images)) ** 0.5))
    log.info(
        "%d Mpx of images: the centre of each is used, up to %d px on a side", pixels // 10**6, side
    )
    starts = [[max(0, (n - side) // 2) for n in m.shape[1:]] for m in images]
    return [m[:, y : y + side, x : x + side] for m, (y, x) in zip(images, starts, strict=True)]


@torch.no_grad()
def set_level(network: NucleiNetwork, images: Sequence[Array]) -> None:
    """Shift the nucleus logit in place.

    Afterwards as many pixels of the images lie above 0 as in their mean stain maps.

    Args:
        network: The network.
        images: Stain maps float32 [3, h, w].
    """
    share = np.concatenate([mean_stain(m)[::2, ::2].ravel() for m in images]) > 0
    logits = np.concatenate([predict(network, m)[0][::2, ::2].ravel() for m in images])
    assert network.head.bias is not None
    network.head.bias[0] -= float(np.quantile(logits, 1 - share.mean()))


def _samples(
    images: Sequence[Array], network: NucleiNetwork | None, rule: Rule
) -> list[PseudoLabels]:
    scores = (mean_stain(m) if network is None else predict(network, m)[0] for m in images)
    found = [make_pseudo_labels(m, s, rule) for m, s in zip(images, scores, strict=True)]
    kept = [x for x in found if x is not None]
    if not kept:
        raise ConfigError(
            f"nothing in {len(images)} image(s) looks like a nucleus: give images with nuclei, and"
            " their --mpp"
        )
    return kept


class _Round:
    """The network of one round, its optimiser, schedule, average and random numbers."""

    def __init__(self, samples: list[PseudoLabels], steps: int, recipe: Recipe, seed: int) -> None:
        self._samples, self._steps, self._recipe = samples, steps, recipe
        self._rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = NucleiNetwork()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = recipe.rate
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=rate, weight_decay=1e-4)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rate, steps)
        self.average = AveragedModel(self._network, use_buffers=True)  # type: ignore[no-untyped-call]

    def step(self, number: int) -> None:
        """Train on one batch; `number` counts from 0."""
        maps, target = _batch(self._samples, self._recipe, self._rng)
        loss = _loss(self._network(maps), maps, target, self._recipe)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        if number >= min((1 - self._recipe.averaged) * self._steps, self._steps - 1):
            self.average.update_parameters(self._network)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors for `restore`."""
        parts = {k: v.state_dict() for k, v in self._stateful().items()}
        return {**parts, "random": random_state(self._rng)}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        restore_random(self._rng, state["random"])

    def _stateful(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
            "average": self.average,
        }


def _batch(
    samples: list[PseudoLabels], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    crops = [
        variations.draw(samples, recipe.crop, recipe.variation, rng) for _ in range(recipe.batch)
    ]
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

    Args:
        out: [N, 2, h, w], logits of nucleus and depth.
        target: [N, 3, h, w], nucleus (0 or 1), depth (0..1) and weight.

    Returns:
        The loss.
    """
    nucleus, depth, weight = target.unbind(1)
    total = weight.sum().clamp_min(1)
    entropy = (
        functional.binary_cross_entropy_with_logits(out[:, 0], nucleus, reduction="none") * weight
    ).sum() / total
    p = torch.sigmoid(out[:, 0])
    overlap = (2 * (weight * p * nucleus).sum() + 1) / ((weight * (p + nucleus)).sum() + 1)
    deviation = ((torch.sigmoid(out[:, 1]) - depth).square() * weight).sum() / total
    return entropy + 1 - overlap + 2 * deviation
