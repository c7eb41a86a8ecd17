"""Training of a dense network on labelled images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder.heads.dense import augment
from pathencoder.heads.dense.augment import Augmentation
from pathencoder.heads.dense.network import DenseNetwork

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Training:
    """How a dense network is trained.

    Attributes:
        steps: Of the optimiser.
        batch: Windows in a step.
        side: Of a window, in pixels; a transformer takes windows of its own input size.
        lr: Highest rate of the decoder.
        encoder_lr: Highest rate of the encoder; 0 keeps it frozen.
        decay: Weight decay.
        average: Of the running average of the weights, which is what is kept.
        augmentation: How windows vary.
        seed: Of all random numbers.
    """

    steps: int = 400
    batch: int = 8
    side: int = 256
    lr: float = 2e-3
    encoder_lr: float = 0.0
    decay: float = 1e-2
    average: float = 0.99
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


def train(
    network: DenseNetwork,
    images: Sequence[Tensor],
    loss: Loss,
    how: Training,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> DenseNetwork:
    """Train the decoder, and the encoder where it has a rate.

    Args:
        network: It is changed.
        images: float [3 + E + T, H, W] each: image in 0..255, extra channels, targets.
        loss: Of logits [N, T', h, w] and targets [N, T, H, W].
        how: The settings.
        progress: Called with the step and its loss.

    Returns:
        The network with averaged weights.
    """
    rng = np.random.default_rng(how.seed)
    frozen = how.encoder_lr == 0
    trained: list[nn.Module] = [network.decoder]
    rates = [how.lr]
    if not frozen:
        trained.append(network.encoder.network)
        rates.append(how.encoder_lr)
    every = [list(part.parameters()) for part in trained]
    optimiser = torch.optim.AdamW(
        [{"params": p, "lr": rate} for p, rate in zip(every, rates, strict=True)],
        weight_decay=how.decay,
    )
    plan = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: _rate(s, how.steps))
    kept = _Average(trained, how.average)
    weights = np.array([math.sqrt(i.shape[-1] * i.shape[-2]) for i in images])
    weights /= weights.sum()
    extra = network.decoder.shape.extra
    side = network.fixed_side or how.side
    for step in range(how.steps):
        network.decoder.train()
        chosen = rng.choice(len(images), how.batch, p=weights)
        views = [_view(images[i], side, how.augmentation, extra, rng) for i in chosen]
        batch = torch.stack(views).to(network.encoder.device)
        image, more, target = batch[:, :3], batch[:, 3 : 3 + extra], batch[:, 3 + extra :]
        logits = network(network.normalised(image), more if extra else None, frozen=frozen)
        value = loss(logits, target)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for part in every for p in part], 1.0)
        optimiser.step()
        plan.step()
        kept.update(step)
        progress(step, value.item())
    kept.put_back()
    return network


def _view(
    planes: Tensor, side: int, how: Augmentation, extra: int, rng: np.random.Generator
) -> Tensor:
    view = augment.window(planes, side, how, rng)
    view[:3] = augment.colours(view[:3], how, rng)
    if extra:
        view[3 : 3 + extra] = augment.others(view[3 : 3 + extra], how, rng)
    return view


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class _Average:
    """A running average of the weights and statistics that change."""

    def __init__(self, parts: Sequence[nn.Module], decay: float) -> None:
        self.parts, self.decay = parts, decay
        self.kept = [copy.deepcopy(part.state_dict()) for part in parts]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for part, kept in zip(self.parts, self.kept, strict=True):
            for name, value in part.state_dict().items():
                if value.is_floating_point():
                    kept[name].lerp_(value, 1 - decay)
                else:
                    kept[name].copy_(value)

    def put_back(self) -> None:
        for part, kept in zip(self.parts, self.kept, strict=True):
            part.load_state_dict(kept)
