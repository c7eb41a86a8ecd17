"""The rows that a head is fitted on, and what a kind of head is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Embeddings with their classes.

    Attributes:
        x: Embeddings [N, D].
        y: Class numbers [N].
        groups: Group numbers [N]; every image is a group of its own where none are known.
        classes: Number of classes.
        class_weights: Of each class [C]. None: so that every class weighs the same.
        seed: Of random numbers.
    """

    x: Floats
    y: Ints
    groups: Ints
    classes: int
    class_weights: Floats | None
    seed: int

    @property
    def weights(self) -> Floats:
        """The weight of each row [N], 1 in the mean."""
        return weights_of(self.y, self.classes, self.class_weights)

    def take(self, rows: Ints) -> Rows:
        """The same with these rows alone."""
        return dataclasses.replace(self, x=self.x[rows], y=self.y[rows], groups=self.groups[rows])


def weights_of(y: Ints, classes: int, class_weights: Floats | None) -> Floats:
    """The weight of each row, 1 in the mean.

    Args:
        y: Class numbers [N].
        classes: Number of classes.
        class_weights: Of each class [C]. None: so that every class weighs the same.

    Returns:
        [N].
    """
    if class_weights is not None:
        weights = class_weights[y]
        return np.asarray(weights / weights.mean(), np.float64)
    counts = np.bincount(y, minlength=classes).clip(1)
    return np.asarray((len(y) / (np.count_nonzero(counts) * counts))[y], np.float64)


class Model(Protocol):
    """A kind of head. Predicting needs numpy alone.

    Attributes:
        Options: Its options, a frozen dataclass that refuses values that do not fit.
    """

    Options: type

    @classmethod
    def choose(cls, rows: Rows, options: Any) -> dict[str, Any]:
        """The settings that grouped folds inside `rows` choose, as JSON values."""

    @classmethod
    def fit(cls, rows: Rows, settings: Mapping[str, Any]) -> Self:
        """Fit on all rows."""

    def logits(self, x: Floats) -> Floats:
        """Scores [N, C] of embeddings [N, D], whose softmax are probabilities."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Self:
        """The model that `arrays` was called on."""


@dataclass(frozen=True)
class Scaling:
    """Standardisation of embeddings: zero mean, unit variance.

    Attributes:
        mean: [D].
        scale: Standard deviation [D]; 1 where an embedding does not vary.
    """

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, x: Floats) -> Scaling:
        """The statistics of rows [N, D]."""
        deviation = x.std(0)
        return cls(x.mean(0), np.where(deviation > 1e-12, deviation, 1.0))

    def __call__(self, x: Floats) -> Floats:
        """Standardised rows."""
        return np.asarray((x - self.mean) / self.scale, np.float64)


def softmax(logits: Floats) -> Floats:
    """Probabilities [N, C] of scores [N, C]."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)
