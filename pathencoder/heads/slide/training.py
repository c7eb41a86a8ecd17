"""Training of a slide head: random tiles of each bag a step; grouped folds stop it early."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder.errors import ConfigError
from pathencoder.heads import stopping
from pathencoder.heads.rows import Floats, Ints
from pathencoder.heads.slide.bags import Bags, Tiles, as_objects
from pathencoder.heads.slide.cox import cox_loss, partial_likelihood
from pathencoder.heads.slide.options import ABMIL, MAX, MEAN, Arrays
from pathencoder.runtime import pick_device

if TYPE_CHECKING:
    from pathencoder.heads.slide.model import SlideModel

_LONGEST = 100  # epochs
_BATCH = 16  # bags in a step
_FEWEST_STEPS = 150  # of classes, where they are chosen
_COX_BATCH = 64  # the bags of a step are compared with each other
_DECAY = 0.01
_FLAT = 1e-6  # deviation of a feature that does not vary
_JUDGED = 4  # an inner fold is judged on so many times the tiles of a step


def best_epoch(kind: type[SlideModel], bags: Bags, settings: Mapping[str, Any]) -> int:
    """The number of epochs with the least loss on grouped folds.

    Raises:
        NoFolds: A class occurs in one group alone.
        ConfigError: The loss is not a number.
    """
    folds = stopping.folds_for(bags.y, bags.groups, bags.seed)
    runs = [_Fold(kind, bags.take(a), bags.take(b), settings) for a, b in folds]
    judged = [run.judged for run in runs]
    if bags.times is None:
        loss = stopping.class_loss([x.y for x in judged], [x.weights for x in judged])
        fewest = math.ceil(_FEWEST_STEPS / math.ceil(len(folds[0][0]) / _BATCH))
    else:
        loss, fewest = _risk_loss(judged), 1
    found = stopping.best_epoch(runs, loss, _LONGEST, fewest)
    bags.trained()
    return found


class _Fold:
    """A training on a fold, and the bags that the fold leaves out."""

    def __init__(
        self, kind: type[SlideModel], inner: Bags, held_out: Bags, settings: Mapping[str, Any]
    ) -> None:
        self._kind = kind
        self.judged = _fewer_tiles(_summed_up(kind, held_out), _JUDGED * _tiles(settings))
        self._training = _Training(kind, inner, settings, inner.seed)

    def epoch(self) -> None:
        with self._training.seeded():
            self._training.epoch()

    def held_out(self) -> Floats:
        return self._kind((self._training.arrays(),)).logits(self.judged.x)


def _risk_loss(judged: Sequence[Bags]) -> Callable[[list[Floats]], float]:
    """The mean over the folds with an event: risks of two networks cannot be compared."""

    def loss(scores: list[Floats]) -> float:
        found = [
            partial_likelihood(risks[:, 0], bags.times, bags.y == 1)
            for risks, bags in zip(scores, judged, strict=True)
            if bags.times is not None and bags.y.any()
        ]
        return float(np.mean(found)) if found else np.inf

    return loss


def members(kind: type[SlideModel], bags: Bags, settings: Mapping[str, Any]) -> Iterator[Arrays]:
    """Train the networks one after the other, each from other random numbers.

    Raises:
        ConfigError: The loss is not a number.
    """
    for number in range(settings["seeds"]):
        training = _Training(kind, bags, settings, bags.seed + 1000 * number)
        with training.seeded():
            for _ in range(settings["epochs"]):
                training.epoch()
        bags.trained()
        yield training.arrays()


def _tiles(settings: Mapping[str, Any]) -> int:
    """Tiles of a bag in a step; slide-mean has one, the mean."""
    return int(settings.get("tiles", 1))


def _summed_up(kind: type[SlideModel], bags: Bags) -> Bags:
    """Bags of their mean tile for slide-mean, which needs no more; the same bags for others."""
    if kind.kind != MEAN:
        return bags
    means = [x.mean(0, dtype=np.float64).astype(np.float32)[None] for x in bags.x]
    return dataclasses.replace(bags, x=as_objects(means))


def _fewer_tiles(bags: Bags, most: int) -> Bags:
    """Bags with at most so many tiles, drawn at random."""
    random = np.random.default_rng(bags.seed)
    drawn = [x if len(x) <= most else x[random.choice(len(x), most, replace=False)] for x in bags.x]
    return dataclasses.replace(bags, x=as_objects(drawn))


class _Network(nn.Module):
    """Tiles to hidden values, pooling, scores."""

    def __init__(self, kind: str, dim: int, outputs: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        hidden = settings["hidden"]
        self.kind = kind
        self.embed, self.out = nn.Linear(dim, hidden), nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(settings["dropout"])
        if kind == ABMIL:
            attention = settings["attention"]
            self.value, self.gate = nn.Linear(hidden, attention), nn.Linear(hidden, attention)
            self.score = nn.Linear(attention, 1, bias=False)  # softmax takes a constant away

    def forward(self, tiles: Tensor, there: Tensor) -> Tensor:
        """Scores [B, C] of tiles [B, T, D], of which `there` [B, T] are no padding."""
        hidden = self.dropout(torch.relu(self.embed(tiles)))
        scores: Tensor = self.out(self._pooled(hidden, there))
        return scores

    def _pooled(self, hidden: Tensor, there: Tensor) -> Tensor:
        if self.kind == MAX:
            return hidden.masked_fill(~there[..., None], 0).amax(1)  # hidden values are 0 or more
        if self.kind == MEAN:  # one tile, their mean
            return hidden[:, 0]
        gated = torch.tanh(self.value(hidden)) * torch.sigmoid(self.gate(hidden))
        scores = self.score(gated).squeeze(2).masked_fill(~there, -torch.inf)
        return torch.einsum("bt,bth->bh", scores.softmax(1), hidden)


class _Training:
    """One network in training."""

    def __init__(
        self, kind: type[SlideModel], bags: Bags, settings: Mapping[str, Any], seed: int
    ) -> None:
        self._scaling = _scaling(kind.kind, bags)
        self._bags, self._seed, self._most = _summed_up(kind, bags), seed, _tiles(settings)
        self._device = pick_device(bags.device)
        self._random = np.random.default_rng(seed)
        self._y = torch.tensor(bags.y, device=self._device)
        self._weights = torch.tensor(bags.weights, device=self._device).float()
        self._times = None if bags.times is None else torch.tensor(bags.times, device=self._device)
        outputs = bags.classes if bags.times is None else 1
        self._state: list[Tensor] = []
        with self.seeded():
            made = _Network(kind.kind, bags.x[0].shape[1], outputs, settings)
        self._net = made.to(self._device)
        self._optimiser = torch.optim.AdamW(
            self._net.parameters(), lr=settings["learning_rate"], weight_decay=_DECAY
        )

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Random numbers that begin with the seed, go on, and leave those of others alone."""
        gpu = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpu):
            if self._state:
                torch.set_rng_state(self._state[0])
                for device, state in zip(gpu, self._state[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            else:
                torch.manual_seed(self._seed)
            yield
            self._state = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, gpu)]

    def epoch(self) -> None:
        """One pass over the bags in random order.

        Raises:
            ConfigError: The loss is not a number.
        """
        size = _BATCH if self._times is None else _COX_BATCH
        order = self._random.permutation(len(self._bags.y))
        for chosen in np.array_split(order, -(-len(order) // size)):
            if self._times is not None and not self._bags.y[chosen].any():
                continue  # without an event there is nothing to learn
            loss = self._loss(self._net(*self._batch(chosen)), chosen)
            if not torch.isfinite(loss):
                raise ConfigError(
                    "the loss of the slide head is not a number any more: give a smaller"
                    " learning_rate"
                )
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()

    def _loss(self, scores: Tensor, chosen: Ints) -> Tensor:
        if self._times is not None:
            return cox_loss(scores[:, 0], self._times[chosen], self._y[chosen] == 1)
        losses = nn.functional.cross_entropy(scores, self._y[chosen], reduction="none")
        return (losses * self._weights[chosen]).mean()

    def arrays(self) -> Arrays:
        """The network as it is now, as arrays of float32."""
        mean, scale = self._scaling
        found = {"mean": mean, "scale": scale}
        for name, layer in self._net.named_children():
            if isinstance(layer, nn.Linear):
                weight = layer.weight.detach().cpu().numpy().T
                found[name] = np.ascontiguousarray(weight[:, 0] if name == "score" else weight)
                if layer.bias is not None:
                    found[f"{name}_bias"] = layer.bias.detach().cpu().numpy().copy()
        return found

    def _batch(self, chosen: Ints) -> tuple[Tensor, Tensor]:
        """Random tiles of bags, [B, T, D], padded; and which are no padding, [B, T]."""
        drawn = [self._drawn(self._bags.x[number]) for number in chosen]
        longest = max(map(len, drawn))
        tiles = np.zeros((len(drawn), longest, drawn[0].shape[1]), np.float32)
        there = np.zeros(tiles.shape[:2], np.bool_)
        mean, scale = self._scaling
        for number, rows in enumerate(drawn):
            tiles[number, : len(rows)] = (rows - mean) / scale
            there[number, : len(rows)] = True
        return torch.from_numpy(tiles).to(self._device), torch.from_numpy(there).to(self._device)

    def _drawn(self, rows: Tiles) -> Tiles:
        if len(rows) <= self._most:
            return rows
        return rows[self._random.choice(len(rows), self._most, replace=False)]


def _scaling(kind: str, bags: Bags) -> tuple[Tiles, Tiles]:
    """What is subtracted from tiles, and what they are divided by [D]; each bag weighs the same.

    The means of bags vary less than tiles. For slide-mean all features get the same further factor,
    so that those in which slides hardly differ stay small.
    """
    means = np.stack([x.mean(0, dtype=np.float64) for x in bags.x])
    mean = means.mean(0)
    squares = np.mean([((x - mean) ** 2).mean(0) for x in bags.x], axis=0)
    deviation = np.sqrt(squares)
    scale = np.where(deviation > _FLAT, deviation, 1.0)
    if kind == MEAN:
        spread = float(np.sqrt(np.mean(((means - mean) / scale) ** 2)))
        scale = scale * (spread if spread > _FLAT else 1.0)
    return mean.astype(np.float32), scale.astype(np.float32)
