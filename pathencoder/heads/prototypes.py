"""The mean embedding of each class, for a few labelled images a class.

Snell et al. 2017, "Prototypical Networks for Few-shot Learning", with cosine on standardised
embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.rows import Floats, Ints, Rows, Scaling

_SHARPNESS = 10.0  # of scores before the temperature: cosines are close to each other


@dataclass(frozen=True)
class PrototypeOptions:
    """Options of the prototype head.

    Attributes:
        shots: Images of each class that are used, drawn at random from as many groups as there
            are. None: all.
    """

    CHOSEN: ClassVar[tuple[str, ...]] = ()  # by folds

    shots: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a number of shots that is no count."""
        count = isinstance(self.shots, int) and not isinstance(self.shots, bool)
        if self.shots is not None and (not count or self.shots < 1):
            raise ConfigError(f"shots={self.shots!r}: a whole number of images, for example 5")


@dataclass(frozen=True)
class Prototypes:
    """The nearest class mean.

    Attributes:
        scaling: Of the embeddings.
        means: Mean of the standardised embeddings of length 1, of length 1 [C, D].
    """

    Options: ClassVar[type] = PrototypeOptions

    scaling: Scaling
    means: Floats

    @classmethod
    def choose(cls, rows: Rows, options: PrototypeOptions) -> dict[str, Any]:
        """Nothing is chosen."""
        return {} if options.shots is None else {"shots": options.shots}

    @classmethod
    def fit(cls, rows: Rows, settings: Mapping[str, Any]) -> Prototypes:
        """Mean embeddings; the statistics of the scaling are of all rows."""
        scaling = Scaling.of(rows.x)
        unit = _unit(scaling(rows.x))
        rng = np.random.default_rng(rows.seed)
        chosen = [
            _draw(np.flatnonzero(rows.y == c), rows.groups, settings.get("shots"), rng)
            for c in range(rows.classes)
        ]
        return cls(scaling, _unit(np.stack([unit[i].mean(0) for i in chosen])))

    def logits(self, x: Floats) -> Floats:
        """Cosines with the means [N, C], sharpened."""
        return np.asarray(_unit(self.scaling(x)) @ self.means.T * _SHARPNESS, np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        return {"mean": self.scaling.mean, "scale": self.scaling.scale, "means": self.means}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> Prototypes:
        """The model that was saved."""
        return cls(Scaling(arrays["mean"], arrays["scale"]), arrays["means"])


def _draw(rows: Ints, groups: Ints, shots: int | None, rng: np.random.Generator) -> Ints:
    """Rows at random, of each group one before any has two."""
    if shots is None or shots >= len(rows):
        return rows
    shuffled = rng.permutation(rows)
    seen: dict[int, int] = {}
    turn = []
    for group in groups[shuffled].tolist():
        turn.append(seen.get(group, 0))
        seen[group] = turn[-1] + 1
    return np.asarray(shuffled[np.argsort(turn, kind="stable")][:shots])


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12), np.float64)
