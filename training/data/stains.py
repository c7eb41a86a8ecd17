"""Weights by the name of a stain class, as in a recipe, as an array for the sampler."""

from __future__ import annotations

import numpy as np

from pathencoder.errors import ConfigError
from training.data.tiles import STAIN_CLASSES


def stain_weights(by_name: dict[str, float]) -> np.ndarray:
    """The weights as float64 [len(STAIN_CLASSES)], 1 for classes that are not named.

    Raises:
        ConfigError: A name is not a stain class.
    """
    unknown = sorted(set(by_name) - set(STAIN_CLASSES))
    if unknown:
        raise ConfigError(f"data.stain_weights: {unknown} are not among {STAIN_CLASSES}")
    return np.array([by_name.get(name, 1.0) for name in STAIN_CLASSES])
