"""Features made small enough for a page: 64 principal components as int8, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.pictures.components import Components, Rows, find_components, unit

PARTS = 64
NEAREST = 12  # tiles that the page lists
_ASKED = 200  # tiles whose similarities are compared


@dataclass(frozen=True)
class Compact:
    """The features of all tiles of a page.

    Attributes:
        rows: int8 [N, K]; only their directions count.
        scores: float32 [N, K], before they were rounded.
        components: The principal components.
        correlation: Of the page's similarities with those of whole features; None: too few tiles.
        agreement: Share of the nearest tiles that are the same; None: too few tiles.
    """

    rows: NDArray[np.int8]
    scores: Rows
    components: Components
    correlation: float | None
    agreement: float | None

    @property
    def explained(self) -> float:
        """The share of the variance that is kept."""
        return float(self.components.shares.sum())


def compact(parts: Sequence[Rows], *, seed: int = 0) -> Compact:
    """Reduce the rows of all slides together, and measure what that changes.

    Args:
        parts: float32 [N, D] of each slide, at least one.
        seed: Of the tiles that are compared.
    """
    components = find_components(parts, PARTS)
    scores = np.concatenate([components.scores(rows) for rows in parts])
    largest = np.maximum(np.abs(scores).max(axis=1, keepdims=True), 1e-12)
    rows = np.rint(scores / largest * 127).astype(np.int8)
    if len(rows) <= NEAREST + 1:
        return Compact(rows, scores, components, None, None)
    random = np.random.default_rng(seed)
    asked = np.sort(random.choice(len(rows), min(_ASKED, len(rows)), replace=False))
    whole = _whole(parts, components, asked)
    small = unit(rows.astype(np.float32))
    page = small @ small[asked].T
    return Compact(rows, scores, components, _correlation(whole, page), _same(whole, page, asked))


def _whole(parts: Sequence[Rows], components: Components, asked: NDArray[np.int64]) -> Rows:
    """Similarities of whole rows to the asked ones: float32 [N, A]."""
    starts = np.cumsum([0, *(len(rows) for rows in parts)])
    place = np.searchsorted(starts, asked, side="right") - 1
    chosen = np.stack([parts[p][a - starts[p]] for p, a in zip(place, asked, strict=True)])
    wanted = unit(components.centred(chosen)).T
    return np.concatenate([unit(components.centred(rows)) @ wanted for rows in parts])


def _correlation(whole: Rows, page: Rows) -> float | None:
    if min(float(whole.std()), float(page.std())) < 1e-6:
        return None
    return float(np.corrcoef(whole.ravel(), page.ravel())[0, 1])


def _same(whole: Rows, page: Rows, asked: NDArray[np.int64]) -> float:
    """Mean share of the nearest tiles, the asked one left out, that both have."""
    columns = np.arange(len(asked))
    found = []
    for cosines in (whole.copy(), page.copy()):
        cosines[asked, columns] = -2
        found.append(np.argpartition(-cosines, NEAREST, axis=0)[:NEAREST])
    both = (found[0][:, None] == found[1][None]).any(axis=1)
    return float(both.mean())
