"""A network with one hidden layer on standardised embeddings; grouped folds stop it early."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads import stopping
from pathencoder.heads.rows import Floats, Rows, Scaling

if TYPE_CHECKING:
    import torch

_LONGEST = 200  # epochs
_BATCH = 256
_FEWEST_STEPS = 20  # where the epochs are chosen
_DECAY = 0.01
_HIDDEN, _DROPOUT, _RATE = 256, 0.25, 1e-3


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the MLP head.

    Attributes:
        hidden: Width of the hidden layer.
        dropout: Share of hidden values that are left out in training.
        learning_rate: Of AdamW.
        epochs: Passes over the images. None: as many as grouped folds need, at most 200.
    """

    hidden: int = _HIDDEN
    dropout: float = _DROPOUT
    learning_rate: float = _RATE
    epochs: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of range."""
        for name, fits, what in (
            ("hidden", _is_count(self.hidden), "a whole number of 1 or more"),
            ("dropout", _is_number(self.dropout) and 0 <= self.dropout < 1, "from 0 to below 1"),
            ("learning_rate", _is_number(self.learning_rate) and self.learning_rate > 0, "above 0"),
            ("epochs", self.epochs is None or _is_count(self.epochs), "a whole number above 0"),
        ):
            if not fits:
                raise ConfigError(f"{name}={getattr(self, name)!r}: {what}")


@dataclass(frozen=True)
class Network:
    """Two layers with a rectifier between them.

    Attributes:
        scaling: Of the embeddings.
        layers: Weight [D, H] and bias [H] of the first, weight [H, C] and bias [C] of the second.
    """

    Options: ClassVar[type] = NetworkOptions

    scaling: Scaling
    layers: tuple[Floats, Floats, Floats, Floats]

    @classmethod
    def choose(cls, rows: Rows, options: NetworkOptions) -> dict[str, Any]:
        """The number of epochs with the least log loss on grouped folds."""
        settings = {
            "hidden": options.hidden,
            "dropout": float(options.dropout),
            "learning_rate": float(options.learning_rate),
        }
        if options.epochs is not None:
            return {**settings, "epochs": options.epochs}
        folds = stopping.folds_for(rows.y, rows.groups, rows.seed)
        runs = [_Fold(rows.take(a), rows.take(b), settings) for a, b in folds]
        judged = [run.judged for run in runs]
        loss = stopping.class_loss([x.y for x in judged], [x.weights for x in judged])
        fewest = math.ceil(_FEWEST_STEPS / math.ceil(len(folds[0][0]) / _BATCH))
        return {**settings, "epochs": stopping.best_epoch(runs, loss, _LONGEST, fewest)}

    @classmethod
    def fit(cls, rows: Rows, settings: Mapping[str, Any]) -> Network:
        """Train on all rows for a given number of epochs.

        Raises:
            ConfigError: The training diverged.
        """
        training = _Training(rows, settings)
        with training.seeded():
            for _ in range(settings["epochs"]):
                training.epoch()
        fitted = training.network()
        if not np.isfinite(fitted.logits(rows.x)).all():
            raise ConfigError(stopping.DIVERGED.format(f"in {settings['epochs']} epochs"))
        return fitted

    def logits(self, x: Floats) -> Floats:
        """Scores [N, C]."""
        first, bias, second, last = self.layers
        hidden = np.maximum(self.scaling(x) @ first + bias, 0)
        return np.asarray(hidden @ second + last, np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        first, bias, second, last = self.layers
        return {
            "mean": self.scaling.mean,
            "scale": self.scaling.scale,
            "weight1": first,
            "bias1": bias,
            "weight2": second,
            "bias2": last,
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> Network:
        """The model that was saved."""
        layers = (arrays["weight1"], arrays["bias1"], arrays["weight2"], arrays["bias2"])
        return cls(Scaling(arrays["mean"], arrays["scale"]), layers)


class _Fold:
    """A training on a fold, and the rows that the fold leaves out."""

    def __init__(self, fitted: Rows, held_out: Rows, settings: Mapping[str, Any]) -> None:
        self._training, self.judged = _Training(fitted, settings), held_out

    def epoch(self) -> None:
        with self._training.seeded():
            self._training.epoch()

    def held_out(self) -> Floats:
        return self._training.network().logits(self.judged.x)


class _Training:
    """A network in training, on the CPU: it is small."""

    def __init__(self, rows: Rows, settings: Mapping[str, Any]) -> None:
        import torch
        from torch import nn

        self._scaling, self._seed = Scaling.of(rows.x), rows.seed
        self._x = torch.tensor(self._scaling(rows.x), dtype=torch.float32)
        self._y, self._weights = torch.tensor(rows.y), torch.tensor(rows.weights).float()
        self._state: torch.Tensor | None = None
        with self.seeded():
            first = nn.Linear(rows.x.shape[1], settings["hidden"])
            last = nn.Linear(settings["hidden"], rows.classes)
        self._layers = (first, last)
        self._net = nn.Sequential(first, nn.ReLU(), nn.Dropout(settings["dropout"]), last)
        self._optimiser = torch.optim.AdamW(
            self._net.parameters(), lr=settings["learning_rate"], weight_decay=_DECAY
        )

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Random numbers that begin with the seed, go on, and leave those of others alone."""
        import torch

        with torch.random.fork_rng(devices=[]):
            if self._state is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()

    def epoch(self) -> None:
        """One pass over the rows in random order."""
        import torch

        for chosen in torch.randperm(len(self._y)).split(_BATCH):
            losses = torch.nn.functional.cross_entropy(
                self._net(self._x[chosen]), self._y[chosen], reduction="none"
            )
            self._optimiser.zero_grad()
            (losses * self._weights[chosen]).mean().backward()
            self._optimiser.step()

    def network(self) -> Network:
        """The network as it is now."""
        weights = [np.ascontiguousarray(_array(layer.weight).T) for layer in self._layers]
        biases = [_array(layer.bias) for layer in self._layers]
        return Network(self._scaling, (weights[0], biases[0], weights[1], biases[1]))


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().double().numpy().copy()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
