"""Training of a dense network on labelled images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from pathencoder.heads.dense import augment
from pathencoder.heads.dense.augment import Augmentation
from pathencoder.heads.dense.network import DenseNetwork
from pathencoder.heads.dense.smp import SmpDecoder
from pathencoder.nuclei.adapt.checkpoint import (
    Checkpoint,
    Stopped,
    random_state,
    restore_random,
)
from pathencoder.runtime import gains_from_bf16

Loss = Callable[[Tensor, Tensor], Tensor]
EVERY = 50  # steps between two checkpoints


@dataclass(frozen=True)
class Training:
    """How a dense network is trained. Chosen by folds in the train parts of GlaS and MoNuSeg.

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
        precision: "fp32", "bf16" (the network under autocast; weights and loss stay fp32), or
            "auto": bf16 on devices that multiply it natively.
    """

    steps: int = 700
    batch: int = 8
    side: int = 256
    lr: float = 3e-3
    encoder_lr: float = 5e-4
    decay: float = 1e-2
    average: float = 0.99
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    precision: str = "auto"

    def on(self, device: torch.device) -> Training:
        """The same with the precision that a device computes in: "fp32" or "bf16"."""
        if self.precision != "auto":
            return self
        return replace(self, precision="bf16" if gains_from_bf16(device) else "fp32")


def train(
    network: DenseNetwork,
    images: Sequence[Tensor],
    loss: Loss,
    how: Training,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    checkpoint: Checkpoint | None = None,
) -> DenseNetwork:
    """Train the decoder, and the encoder where it has a rate.

    Args:
        network: It is changed.
        images: float [3 + E + T, H, W] each: image in 0..255, extra channels, targets.
        loss: Of logits [N, T', h, w] and targets [N, T, H, W].
        how: The settings.
        progress: Called with the step and its loss.
        checkpoint: A file that holds the state of every 50th step and of the last one: the same
            call goes on from there, and gives the same weights bit for bit.

    Returns:
        The network with averaged weights.

    Raises:
        ConfigError: The loss is no number.
        StoreError: The checkpoint cannot be written.
    """
    run = _Run(network, images, loss, how)
    stopped = checkpoint.read() if checkpoint is not None else None
    if stopped is not None:
        run.restore(stopped)
    for step in range(run.done, how.steps):
        value = run.step()
        if checkpoint is not None and (run.done % EVERY == 0 or run.done == how.steps):
            checkpoint.write(run.state())
        progress(step, value)
    run.average.put_back()
    return network


class _Run:
    """A training with its optimiser, average and random numbers."""

    def __init__(
        self, network: DenseNetwork, images: Sequence[Tensor], loss: Loss, how: Training
    ) -> None:
        self.network, self.images, self.loss, self.how = network, images, loss, how
        self.done = 0
        self.frozen = how.encoder_lr == 0
        self.rng = np.random.default_rng(how.seed)
        self.trained: list[nn.Module] = [network.decoder]
        rates = [how.lr]
        if not self.frozen:
            self.trained.append(network.encoder.network)
            rates.append(how.encoder_lr)
        every = [list(part.parameters()) for part in self.trained]
        self.parameters = [p for part in every for p in part]
        self.optimiser = torch.optim.AdamW(
            [{"params": p, "lr": rate} for p, rate in zip(every, rates, strict=True)],
            weight_decay=how.decay,
        )
        self.plan = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: _rate(step, how.steps)
        )
        self.average = _Average(self.trained, how.average)
        weights = np.array([math.sqrt(i.shape[-1] * i.shape[-2]) for i in images])
        self.weights = weights / weights.sum()
        self.side = network.fixed_side or how.side
        _check_windows(network, how.batch, self.side)
        self.bf16 = how.on(network.encoder.device).precision == "bf16"

    def step(self) -> float:
        """One step; its loss."""
        network, extra = self.network, self.network.decoder.shape.extra
        network.decoder.train()
        chosen = self.rng.choice(len(self.images), self.how.batch, p=self.weights)
        views = [
            _view(self.images[i], self.side, self.how.augmentation, extra, self.rng) for i in chosen
        ]
        batch = torch.stack(views).to(network.encoder.device)
        image, more, target = batch[:, :3], batch[:, 3 : 3 + extra], batch[:, 3 + extra :]
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.bf16):
            logits = network(network.normalised(image), more if extra else None, frozen=self.frozen)
        loss = self.loss(logits.float(), target)
        value = float(loss.item())
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss became {value} in step {self.done + 1} of {self.how.steps}: the rates"
                f" are too high (lr={self.how.lr:g}, encoder_lr={self.how.encoder_lr:g}; try a"
                " third of them), or the encoder's weights hold NaN"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.plan.step()
        self.average.update(self.done)
        self.done += 1
        return value

    def state(self) -> Stopped:
        """All that the next steps depend on."""
        kept: dict[str, Any] = {
            "parts": [part.state_dict() for part in self.trained],
            "optimiser": self.optimiser.state_dict(),
            "plan": self.plan.state_dict(),
            "average": self.average.kept,
            "random": random_state(self.rng),
        }
        return Stopped(0, self.done, None, kept)

    def restore(self, stopped: Stopped) -> None:
        """Go on from a state."""
        for part, kept in zip(self.trained, stopped.state["parts"], strict=True):
            part.load_state_dict(kept)
        for own, kept in zip(self.average.kept, stopped.state["average"], strict=True):
            for name, value in own.items():
                value.copy_(kept[name])
        self.optimiser.load_state_dict(stopped.state["optimiser"])
        self.plan.load_state_dict(stopped.state["plan"])
        restore_random(self.rng, stopped.state["random"])
        self.done = stopped.step


def _check_windows(network: DenseNetwork, batch: int, side: int) -> None:
    """Raises ConfigError for windows that the decoder cannot take."""
    coarse = max(network.decoder.shape.strides)
    if batch * math.ceil(side / coarse) ** 2 < 2:
        raise ConfigError(
            f"batch={batch} with side={side}: the encoder's coarsest map has one value a step, and"
            f" one cannot be normalised. Give batch=2, or side={2 * coarse}"
        )
    if isinstance(network.decoder, SmpDecoder) and side % coarse:
        fits = max(1, side // coarse) * coarse
        raise ConfigError(f"side={side}: this decoder takes multiples of {coarse}, as {fits}")


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
