"""What can be set of an adaptation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pathencoder.errors import ConfigError
from pathencoder.seeds import checked_seed

HOWS = ("lora", "last", "all")
# Highest rates, chosen by folds inside train parts: docs/heads.md.
_RATES = {"lora": 1e-3, "last": 3e-4, "all": 3e-4}


@dataclass(frozen=True)
class Options:
    """How an encoder is adapted; see `pathencoder.adapt`."""

    how: str = "lora"
    epochs: int = 10
    patience: int = 5
    batch: int = 32
    rate: float | None = None
    head_rate: float = 1e-4
    layer_decay: float = 0.75
    weight_decay: float = 0.01
    stages: int | None = None
    rank: int = 8
    folds: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that does not fit."""
        if self.how not in HOWS:
            raise ConfigError(f"how={self.how!r}: one of {', '.join(HOWS)}")
        for name, least in (("epochs", 1), ("patience", 1), ("batch", 1), ("rank", 1)):
            _check(name, getattr(self, name), _is_count(getattr(self, name), least))
        _check("stages", self.stages, self.stages is None or _is_count(self.stages, 1))
        _check("folds", self.folds, _is_count(self.folds, 0) and self.folds != 1)
        _check("rate", self.rate, self.rate is None or _is_rate(self.rate))
        _check("head_rate", self.head_rate, _is_rate(self.head_rate))
        _check(
            "layer_decay", self.layer_decay, _is_rate(self.layer_decay) and self.layer_decay <= 1
        )
        decays = _is_number(self.weight_decay) and 0 <= self.weight_decay < math.inf
        _check("weight_decay", self.weight_decay, decays)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    @property
    def highest_rate(self) -> float:
        """Of the encoder's weights: the given one, or the default of `how`."""
        return _RATES[self.how] if self.rate is None else float(self.rate)


_FITS = {
    "folds": "0 (none), or a whole number from 2 on",
    "rate": "a number above 0, for example 0.001",
    "head_rate": "a number above 0, for example 0.001",
    "layer_decay": "above 0 and at most 1",
    "weight_decay": "0 or more",
    "stages": "a whole number from 1 on, or None for the last third",
}


def _check(name: str, value: object, fits: bool) -> None:  # noqa: FBT001
    if not fits:
        raise ConfigError(f"{name}={value!r}: {_FITS.get(name, 'a whole number from 1 on')}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and 0 < value < math.inf
