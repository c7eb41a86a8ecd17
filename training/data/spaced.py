"""A part of many rows that stands for all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """Numbers of at most `most` of `count` rows, evenly spaced from the first to the last.

    Tables are often sorted by class: rows[:: count // most][:most] ends before the last rows of any
    count that is no multiple of `most`, and may read the first class alone.

    Args:
        count: How many rows there are.
        most: How many are taken at most.

    Returns:
        Ascending, none twice; all rows where there are no more than `most`.
    """
    places = np.linspace(0, count - 1, min(most, count)).round()
    return np.unique(places.astype(np.int64))
