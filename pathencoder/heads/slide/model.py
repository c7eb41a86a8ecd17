"""The fitted networks of a slide head: bags of tiles to scores, with numpy alone.

- abmil: gated attention, Ilse et al. 2018, "Attention-based Deep Multiple Instance Learning",
  equations 8 and 9: a bag is the mean of its tiles' hidden values, weighted by attention.
- slide-mean: the mean of the tiles, then one hidden layer; as SiMLP (arXiv 2502.20823).
- slide-max: the largest value of each hidden unit over the tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.rows import Floats
from pathencoder.heads.slide.bags import Bags, Tiles
from pathencoder.heads.slide.options import ABMIL, MAX, MEAN, Arrays, SlideOptions

_BLOCK = 4096  # tiles in one product of matrices


@dataclass(frozen=True)
class SlideModel:
    """Networks of one shape that were trained from different random numbers.

    Attributes:
        members: The arrays of each network: `mean`, `scale` [D], `embed` [D, H], `embed_bias`,
            `out` [H, C], `out_bias`; of abmil also `value` and `gate` [H, A], their biases, and
            `score` [A].
    """

    kind: ClassVar[str]

    members: tuple[Arrays, ...]

    @classmethod
    def choose(cls, bags: Bags, options: SlideOptions) -> dict[str, Any]:
        """The settings, with the number of epochs that has the least loss on inner folds."""
        from pathencoder.heads.slide import training

        settings = options.settings()
        epochs = options.epochs or training.best_epoch(cls, bags, settings)
        return {**settings, "epochs": epochs}

    @classmethod
    def fit(cls, bags: Bags, settings: Mapping[str, Any]) -> Self:
        """Train all networks on all bags for a given number of epochs."""
        from pathencoder.heads.slide import training

        return cls(tuple(training.members(cls, bags, settings)))

    def logits(self, bags: Sequence[Tiles] | NDArray[np.object_]) -> Floats:
        """Scores [B, C] of bags, whose softmax are probabilities: the mean of the networks'."""
        found = [
            np.mean([_out(m, self.pooled(m, tiles)) for m in self.members], axis=0, dtype=float)
            for tiles in bags
        ]
        return np.asarray(found, np.float64).reshape(len(bags), -1)

    def tile_logits(self, tiles: Tiles) -> Floats:
        """Scores [N, C] of each tile as if it were a slide of its own."""
        each = [
            np.concatenate([_out(m, hidden) for hidden in _hidden(m, tiles)]) for m in self.members
        ]
        return np.asarray(np.mean(each, axis=0), np.float64)

    def weights(self, tiles: Tiles) -> Floats:
        """The weight of each tile for each network, [S, N]; each row sums to 1."""
        return np.stack([self.weights_of(m, tiles) for m in self.members])

    def pooled(self, member: Arrays, tiles: Tiles) -> NDArray[np.float32]:
        """The hidden values of a bag [H]."""
        raise NotImplementedError

    def weights_of(self, member: Arrays, tiles: Tiles) -> Floats:
        """The weight of each tile [N] for one network."""
        raise NotImplementedError

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved: the arrays of all networks along a first axis."""
        return {name: np.stack([m[name] for m in self.members]) for name in self.members[0]}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Self:
        """The model that was saved."""
        return cls(
            tuple(
                {name: np.ascontiguousarray(array[i]) for name, array in arrays.items()}
                for i in range(int(settings["seeds"]))
            )
        )


@dataclass(frozen=True)
class Abmil(SlideModel):
    """Gated attention."""

    kind: ClassVar[str] = ABMIL

    def pooled(self, member: Arrays, tiles: Tiles) -> NDArray[np.float32]:
        """The mean of the hidden values, weighted by attention [H]."""
        return _softmax_pooled(member, tiles)[0]

    def weights_of(self, member: Arrays, tiles: Tiles) -> Floats:
        """The attention of each tile [N]."""
        return _softmax_pooled(member, tiles)[1]


@dataclass(frozen=True)
class SlideMean(SlideModel):
    """The mean of the tiles, then one hidden layer."""

    kind: ClassVar[str] = MEAN

    def pooled(self, member: Arrays, tiles: Tiles) -> NDArray[np.float32]:
        """The hidden values of the mean tile [H]."""
        mean = tiles.mean(0, dtype=np.float64).astype(np.float32)
        hidden: NDArray[np.float32] = np.concatenate(list(_hidden(member, mean[None])))[0]
        return hidden

    def weights_of(self, member: Arrays, tiles: Tiles) -> Floats:
        """Raises ConfigError: every tile weighs the same."""
        raise ConfigError(
            f"a {MEAN} head weighs every tile the same: there is no attention to draw. Fit"
            f" {ABMIL!r}, or draw the scores of the tiles (head.tile_scores, --kind scores)"
        )


@dataclass(frozen=True)
class SlideMax(SlideModel):
    """The largest value of each hidden unit."""

    kind: ClassVar[str] = MAX

    def pooled(self, member: Arrays, tiles: Tiles) -> NDArray[np.float32]:
        """The largest values [H]."""
        return np.asarray(np.max([hidden.max(0) for hidden in _hidden(member, tiles)], axis=0))

    def weights_of(self, member: Arrays, tiles: Tiles) -> Floats:
        """The share of the active hidden units whose largest value is at each tile [N]."""
        hidden = np.concatenate(list(_hidden(member, tiles)))
        active = hidden.max(0) > 0
        counts = np.bincount(hidden[:, active].argmax(0), minlength=len(tiles))
        return np.asarray(counts / max(int(active.sum()), 1), np.float64)


def _hidden(member: Arrays, tiles: Tiles) -> Iterator[NDArray[np.float32]]:
    """The hidden values of tiles in blocks, [n, H] each."""
    for start in range(0, len(tiles), _BLOCK):
        scaled = (tiles[start : start + _BLOCK] - member["mean"]) / member["scale"]
        yield np.maximum(scaled @ member["embed"] + member["embed_bias"], 0)


def _out(member: Arrays, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = hidden @ member["out"] + member["out_bias"]
    return found


def _softmax_pooled(member: Arrays, tiles: Tiles) -> tuple[NDArray[np.float32], Floats]:
    """The pooled hidden values [H] and the attention [N] of a bag."""
    hidden = np.concatenate(list(_hidden(member, tiles)))
    value = np.tanh(hidden @ member["value"] + member["value_bias"])
    gate = _sigmoid(hidden @ member["gate"] + member["gate_bias"])
    scores = ((value * gate) @ member["score"]).astype(np.float64)
    powers = np.exp(scores - scores.max())
    attention = powers / powers.sum()
    return (attention.astype(np.float32) @ hidden), attention


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)
