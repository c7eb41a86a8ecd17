"""Weights by stain class, as a recipe names them, to the array that the sampler takes."""

from __future__ import annotations

import numpy as np

from pathencoder.errors import ConfigError
from training.data.corpus import STAIN_CLASSES


def stain_weights(by_name: dict[str, float]) -> np.ndarray:
    """float64 [len(STAIN_CLASSES)], 1 for classes that are not named.

    Raises ConfigError for a class there is none of.
    """
    unknown = sorted(set(by_name) - set(STAIN_CLASSES))
    if unknown:
        raise ConfigError(f"data.stain_weights: {unknown} are not among {STAIN_CLASSES}")
    return np.array([by_name.get(name, 1.0) for name in STAIN_CLASSES])
