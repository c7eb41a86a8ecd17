"""What a corpus holds: tiles and slides by licence and by stain, and its scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Count:
    """Numbers of tiles and of slides."""

    tiles: int
    slides: int


@dataclass(frozen=True)
class Scale:
    """Micrometres per pixel of the tiles as they are stored, where the table states it.

    Attributes:
        tiles: How many tiles have a stated scale.
        low: The 5th percentile.
        median: The median.
        high: The 95th percentile.
    """

    tiles: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Contents:
    """The contents of a corpus by licence class (`unknown` where none is stated), stain and scale.

    Attributes:
        licences: Licence class (P, N, unknown) or licence -> tiles and slides.
        stains: The same by stain class.
        scale: None where no tile has a stated scale.
    """

    licences: dict[str, Count]
    stains: dict[str, Count]
    scale: Scale | None

    def with_stain(self, name: str) -> Contents:
        """The same with this stain class for the tiles that have none.

        A slide of both kinds of tiles is counted twice.
        """
        stains = dict(self.stains)
        if (unknown := stains.pop(UNKNOWN, None)) is not None:
            there = stains.get(name, Count(0, 0))
            stains[name] = Count(there.tiles + unknown.tiles, there.slides + unknown.slides)
        return dataclasses.replace(self, stains=stains)


def contents_of(
    slides: Sequence[str],
    licences: Sequence[str],
    stains: Sequence[str],
    mpp: Sequence[float],
    tiles: Sequence[int] | np.ndarray | None = None,
) -> Contents:
    """Count the rows of a table.

    Args:
        slides: The slide of each row.
        licences: The licence class or licence of each row; "" where none is stated.
        stains: The stain class of each row.
        mpp: Micrometres per pixel of each row; NaN where none is stated.
        tiles: Tiles of each row; None: one.

    Returns:
        The contents.
    """
    weights = np.ones(len(slides), np.int64) if tiles is None else np.asarray(tiles, np.int64)
    return Contents(
        _counts([name or UNKNOWN for name in licences], slides, weights),
        _counts(stains, slides, weights),
        _scale(np.asarray(mpp, np.float64), weights),
    )


def _counts(values: Sequence[str], slides: Sequence[str], tiles: np.ndarray) -> dict[str, Count]:
    """Value -> its tiles and slides, those with most tiles first."""
    totals: dict[str, int] = {}
    of: dict[str, set[str]] = {}
    for value, slide, count in zip(values, slides, tiles.tolist(), strict=True):
        totals[value] = totals.get(value, 0) + count
        of.setdefault(value, set()).add(slide)
    order = sorted(totals, key=lambda value: (-totals[value], value))
    return {value: Count(totals[value], len(of[value])) for value in order}


def _scale(mpp: np.ndarray, tiles: np.ndarray) -> Scale | None:
    stated = np.isfinite(mpp) & (tiles > 0)
    if not stated.any():
        return None
    order = np.argsort(mpp[stated], kind="stable")
    values, ends = mpp[stated][order], np.cumsum(tiles[stated][order])
    at = [values[np.searchsorted(ends, share * ends[-1])] for share in (0.05, 0.5, 0.95)]
    return Scale(int(ends[-1]), *(round(float(value), 4) for value in at))


def mpp_of(text: str) -> float:
    """The number in an `mpp_value` column; NaN for none, or for one that is no scale."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if 0.01 <= value <= 100 else math.nan
