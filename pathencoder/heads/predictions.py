"""What a classifier predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.images import Key


@dataclass(frozen=True)
class Predictions:
    """Predictions for images, in order.

    Attributes:
        keys: The path relative to the folder that was given, else the number of the image.
        classes: The names of the columns of `probabilities`.
        labels: The class with the highest probability; "" where the image cannot be read.
        probabilities: float64 [N, C]; NaN where the image cannot be read.
        abstained: bool [N]: whether the head abstains, because the probability of the label is
            below the head's threshold, or the image cannot be read. All False without a threshold.
        errors: Why an image cannot be read, by key.
    """

    keys: list[Key]
    classes: tuple[str, ...]
    labels: list[str]
    probabilities: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    errors: dict[Key, str]

    def __len__(self) -> int:
        return len(self.keys)


def predictions(
    keys: Sequence[Key],
    classes: tuple[str, ...],
    probabilities: NDArray[np.float64],
    threshold: float | None,
    errors: dict[Key, str],
) -> Predictions:
    """Labels and abstentions of probabilities [N, C], whose rows are NaN for unreadable images."""
    bad = np.asarray(np.isnan(probabilities).any(1), np.bool_)
    best = np.where(bad, -1, probabilities.argmax(1))
    sure = probabilities.max(1, initial=0.0)
    unsure = np.zeros(len(bad), np.bool_) if threshold is None else sure < threshold
    return Predictions(
        list(keys),
        classes,
        ["" if i < 0 else classes[i] for i in best],
        probabilities,
        np.asarray(bad | unsure, np.bool_),
        errors,
    )
