"""The options of slide heads."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError

ABMIL, MEAN, MAX = "abmil", "slide-mean", "slide-max"  # kinds of slide head
SLIDE, PATIENT = "slide", "patient"
Arrays = dict[str, NDArray[np.float32]]  # of one network
_NOT_RECORDED = frozenset({"features", "epochs", "device", "time", "event"})


@dataclass(frozen=True)
class SlideOptions:
    """Options of every slide head, and those of "slide-mean".

    Attributes:
        features: The folder of the feature files, in any layout.
        bag: What gets a label: "slide", or "patient" for all slides of a patient together.
        hidden: Width of the hidden layer.
        dropout: Share of hidden values that are left out in training.
        learning_rate: Of AdamW.
        seeds: Networks that are trained from different random numbers; their scores are averaged.
        epochs: Passes over the bags. None: as many as grouped folds need.
        device: Where to train: "cpu", "cuda", "auto".
        time: For survival in place of classes: the column of the times to the event, or to the last
            observation.
        event: For survival: the column that is 1 for an event and 0 for a last observation.
    """

    CHOSEN: ClassVar[tuple[str, ...]] = ("epochs",)  # by folds, where not given

    features: str | os.PathLike[str] | None = None
    bag: Literal["slide", "patient"] = "slide"
    hidden: int = 256
    dropout: float = 0.25
    learning_rate: float = 3e-4
    seeds: int = 3
    epochs: int | None = None
    device: str = "auto"
    time: str | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of range."""
        if self.features is not None and not isinstance(self.features, str | os.PathLike):
            raise ConfigError(f"features={self.features!r}: a folder of feature files")
        if self.bag not in (SLIDE, PATIENT):
            raise ConfigError(f"bag={self.bag!r}: 'slide' or 'patient'")
        if (self.time is None) != (self.event is None):
            raise ConfigError("time= and event= belong together: two columns of the table")
        for name in ("hidden", "attention", "tiles", "seeds", "epochs"):
            value = getattr(self, name, None)
            if value is not None and not _is_count(value):
                raise ConfigError(f"{name}={value!r}: a whole number of 1 or more")
        if not (_is_number(self.dropout) and 0 <= self.dropout < 1):
            raise ConfigError(f"dropout={self.dropout!r}: from 0 to below 1")
        if not (_is_number(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate={self.learning_rate!r}: above 0")

    def settings(self) -> dict[str, Any]:
        """What is recorded in the head, as JSON values; `epochs` is added once it is known."""
        given = dataclasses.asdict(self)
        return {name: value for name, value in given.items() if name not in _NOT_RECORDED}


@dataclass(frozen=True)
class MaxOptions(SlideOptions):
    """Options of "slide-max".

    Attributes:
        tiles: Tiles that are drawn at random from each bag in each step.
    """

    tiles: int = 512


@dataclass(frozen=True)
class AbmilOptions(MaxOptions):
    """Options of "abmil".

    Attributes:
        attention: Width of the attention layer.
    """

    attention: int = 128


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
