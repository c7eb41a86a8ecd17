"""A score over several seeds, as the tables of fitted heads and adapted encoders print it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def over_seeds(scores: Sequence[float]) -> str:
    """The mean, and the standard deviation of a sample in brackets where there are several."""
    mean = f"{np.mean(scores):.3f}"
    return f"{mean} ({np.std(scores, ddof=1):.3f})" if len(scores) > 1 else mean
