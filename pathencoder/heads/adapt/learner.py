"""An encoder and a linear layer in training: which weights, at what rates, and their state."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder import outputs, wrapped
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.folding import for_training
from pathencoder.heads.adapt import lora, unfreeze
from pathencoder.heads.adapt.options import Options
from pathencoder.heads.adapt.tiles import Tiles
from pathencoder.heads.linear import Linear
from pathencoder.heads.rows import Floats, Ints, Scaling
from pathencoder.runtime import gains_from_bf16
from pathencoder.stream import Settings

Weights = dict[str, Tensor]
_DECAY = 0.99  # of the running average; lower at the beginning
_READ = 64  # images whose pixels are gathered at a time


class LinearLayer(nn.Module):
    """A linear head as a layer: its standardisation stays as it is, its weights are trained."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: Linear) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(head.scaling.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(head.scaling.scale, dtype=torch.float32))
        self.weight = nn.Parameter(torch.tensor(head.weight, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(head.bias, dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """Scores [N, C] of embeddings [N, D]."""
        return ((rows - self.mean) / self.scale) @ self.weight + self.bias

    def head(self) -> Linear:
        """The head as it is now."""
        mean, scale, weight, bias = (
            value.detach().cpu().double().numpy().copy()
            for value in (self.mean, self.scale, self.weight, self.bias)
        )
        return Linear(Scaling(mean, scale), np.ascontiguousarray(weight), bias)


class Learner:
    """A copy of an encoder and a linear layer on its embedding.

    A running average of the weights is what is evaluated and kept: it swings less from epoch to
    epoch than the weights. The network runs in eval mode: running statistics of batch normalisation
    do not move.

    Args:
        encoder: The encoder; it does not change.
        head: Where the layer begins.
        how: The settings.

    Raises:
        ConfigError: The network cannot be trained in this way.
        MissingExtra: peft is needed, and not installed.
    """

    def __init__(self, encoder: Encoder, head: Linear, how: Options) -> None:
        network = _copied(encoder)
        self.how = how
        self._parameters = sum(p.numel() for p in network.parameters())
        if how.how == "lora":
            network = lora.add(network, encoder.spec, rank=how.rank, seed=how.seed)
            adapters = [p for p in network.parameters() if p.requires_grad]
            groups = [unfreeze.group_of(adapters, how.highest_rate, how.weight_decay)]
        else:
            stages = None
            if how.how == "last":
                stages = how.stages or unfreeze.last_third(network, encoder.spec)
            groups = unfreeze.groups(
                network,
                unfreeze.unfreeze(network, encoder.spec, stages=stages),
                rate=how.highest_rate,
                layer_decay=how.layer_decay,
                decay=how.weight_decay,
            )
        self.encoder = Encoder(network, encoder.spec)
        # its licence stays; what was exported of it has rows that differ by rounding
        origin = encoder.origin
        if origin is not None:
            self.encoder.origin = dataclasses.replace(origin, exports=False)
        self.layer = LinearLayer(head).to(encoder.device)
        groups.append(unfreeze.group_of(list(self.layer.parameters()), how.head_rate, 0.0))
        self.optimiser = torch.optim.AdamW(groups)
        self.trained = [p for group in groups for p in group["params"]]
        self._average = {name: p.detach().clone() for name, p in self._named()}
        self._steps = 0
        self._stages = outputs.stages_read(encoder.spec)
        self._bf16 = gains_from_bf16(encoder.device)

    @property
    def counts(self) -> tuple[int, int]:
        """How many numbers are trained, those of adapters among them, and how many it has."""
        parameters = self.encoder.network.parameters()
        return sum(p.numel() for p in parameters if p.requires_grad), self._parameters

    def loss(self, batch: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Weighted cross-entropy of a normalised batch; differentiable."""
        device = self.encoder.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            network = for_training(self.encoder.network, self._stages)
            embedding = outputs.read_embedding(network, self.encoder.spec, batch.to(device))
        scores = self.layer(embedding.float())
        each = nn.functional.cross_entropy(scores, y.to(device), reduction="none")
        return (each * weights.to(device)).mean()

    def step(self, loss: Tensor, share: float) -> None:
        """One step of the optimiser, at a share of the highest rates."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["highest"] * share
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self._steps += 1
        decay = min(_DECAY, (1 + self._steps) / (10 + self._steps))
        for name, value in self._named():
            self._average[name].lerp_(value.detach(), 1 - decay)

    def logits(self, tiles: Tiles, rows: Ints) -> Floats:
        """Scores [N, C] of images as they are, at full precision."""
        return self.layer.head().logits(embeddings(self.encoder, tiles, rows))

    def average(self) -> Weights:
        """A copy of the running average of what is trained, on the CPU."""
        return {name: value.cpu().clone() for name, value in self._average.items()}

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The running average in place of the weights inside the block."""
        own = {name: value.detach().clone() for name, value in self._named()}
        self.load(self._average)
        try:
            yield
        finally:
            self.load(own)

    def load(self, weights: Weights) -> None:
        """Use a copy of weights as `average` returns them."""
        with torch.no_grad():
            for name, value in self._named():
                value.copy_(weights[name])

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for `restore`."""
        return {
            "weights": {name: value.detach().cpu().clone() for name, value in self._named()},
            "average": self.average(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self._steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.load(state["weights"])
        for name, value in self._average.items():
            value.copy_(state["average"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self._steps = state["steps"]

    def finished(self) -> tuple[Encoder, lora.Adapter | None]:
        """The encoder with its adapters merged, and their files; the learner ends with it."""
        adapter = None
        network = self.encoder.network
        if self.how.how == "lora":
            adapter = lora.adapter_of(network)
            network = lora.merge(network)
        if not networks.has_tokens(network):  # as a loaded encoder: the same kernels
            networks.order_for_convolutions(network)
        for parameter in network.parameters():
            parameter.requires_grad = True
        encoder = Encoder(network, self.encoder.spec)
        encoder.origin = self.encoder.origin
        return encoder, adapter

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for part, module in (("network", self.encoder.network), ("layer", self.layer)):
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{part}.{name}", parameter


def embeddings(encoder: Encoder, tiles: Tiles, rows: Ints) -> Floats:
    """The embeddings [N, D] of images as they are, at full precision.

    Raises:
        ImageError: An image cannot be read.
    """
    runner = encoder.runner(Settings())
    parts = [
        runner(np.stack([tiles.pixels(int(row)) for row in part])).cpu().numpy()
        for part in np.split(rows, range(_READ, len(rows), _READ))
    ]
    return np.asarray(np.concatenate(parts), np.float64)


def refuse(encoder: Encoder) -> None:
    """Refuse an encoder that cannot be trained.

    Raises:
        ConfigError: Its weights are not float32, or it holds adapters that are not merged.
    """
    if encoder.dtype != torch.float32:
        raise ConfigError(
            f"the weights of {encoder.spec.name} are {encoder.dtype}: load the encoder with"
            " dtype=None to adapt it (mixed precision is used where it is faster)"
        )
    wrapped.plain_state(encoder.network, ())


def _copied(encoder: Encoder) -> Any:
    """A copy of an encoder's network, without wrappers."""
    refuse(encoder)
    return copy.deepcopy(wrapped.bare(encoder.network)).eval()
