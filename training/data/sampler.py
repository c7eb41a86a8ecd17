"""Which tiles make up step s.

A pure function of (seed, step), so that a position is a number and resume costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.corpus import Corpus


@dataclass(frozen=True)
class Sampler:
    """Draws slides with probability ~ their weights, no slide twice in a batch while there are enough, then one tile of each.

    Memory grows with slides, not with tiles: a tile is an offset into its slide's range.
    """

    slide_starts: np.ndarray  # int64 [slides + 1]
    weights: np.ndarray  # float64 [slides], sum 1
    batch: int
    seed: int

    def draw(self, step: int) -> np.ndarray:
        """Tile indices int64 [batch] of this step, over all processes together."""
        rng = np.random.default_rng((self.seed, step))
        slides = _weighted_without_replacement(self.weights, self.batch, rng)
        first, last = self.slide_starts[slides], self.slide_starts[slides + 1]
        tiles: np.ndarray = first + (rng.random(self.batch) * (last - first)).astype(np.int64)
        return tiles


def make_sampler(
    corpus: Corpus,
    *,
    batch: int,
    seed: int,
    slide_power: float = 0.5,
    organ_power: float = 1.0,
    stain_power: float = 1.0,
    stain_weights: np.ndarray | None = None,
) -> Sampler:
    """A sampler over a corpus, in three levels: a stain, an organ of it, a slide of that.

    A slide's share among those of its stain and organ is ~ (its tiles) ** slide_power: 1 is uniform
    over tiles, 0 over slides. An organ's share within its stain is ~ (the sum of its slides) **
    organ_power, a stain's ~ (the sum of its organs) ** stain_power: 1 leaves them as the slides
    make them, 0 gives every one the same. stain_weights: float [len(STAIN_CLASSES)], how many times
    more often a slide of a class is drawn.
    """
    weights = np.diff(corpus.slide_starts).astype(np.float64) ** slide_power
    weights = _levelled(
        weights,
        corpus.slide_stains.astype(np.int64) * len(corpus.organs) + corpus.slide_organs,
        organ_power,
    )
    weights = _levelled(weights, corpus.slide_stains, stain_power)
    if stain_weights is not None:
        weights = weights * stain_weights[corpus.slide_stains]
    return Sampler(corpus.slide_starts, weights / weights.sum(), batch, seed)


def _levelled(weights: np.ndarray, classes: np.ndarray, power: float) -> np.ndarray:
    """Weights whose sum in each class is the old sum to this power."""
    if power == 1:
        return weights
    _, of = np.unique(classes, return_inverse=True)
    levelled: np.ndarray = weights * np.bincount(of, weights)[of] ** (power - 1)
    return levelled


def _weighted_without_replacement(
    weights: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices int64 [count], each at most once a round of len(weights) (Efraimidis and Spirakis 2006: the largest u ** (1 / w))."""
    drawn: list[np.ndarray] = []
    left = count
    while left > 0:
        keys = np.log(rng.random(len(weights))) / np.maximum(weights, 1e-300)
        take = min(left, int((weights > 0).sum()))
        best = np.argpartition(-keys, take - 1)[:take]
        drawn.append(best[np.argsort(-keys[best])])
        left -= take
    return np.concatenate(drawn)
