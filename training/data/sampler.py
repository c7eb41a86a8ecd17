"""The tiles of a step, as a pure function of seed and step, so that a run resumes at no cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.corpus import Corpus


@dataclass(frozen=True)
class Sampler:
    """Draws slides in proportion to their weights, then one tile of each.

    No slide is drawn twice for a batch while there are enough slides. Memory grows with the number
    of slides: a tile is an offset into its slide's range.

    Attributes:
        slide_starts: int64 [slides + 1], as in Corpus.
        weights: float64 [slides], sum 1.
        batch: Tiles of a step, over all processes.
        seed: The run's seed.
    """

    slide_starts: np.ndarray
    weights: np.ndarray
    batch: int
    seed: int

    def draw(self, step: int) -> np.ndarray:
        """The tile indices of a step, int64 [batch], over all processes."""
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
    """A sampler with weights on three levels: stain class, organ within it, slide within that.

    Args:
        corpus: The tiles.
        batch: Tiles of a step, over all processes.
        seed: The run's seed.
        slide_power: A slide's share of its stain and organ is proportional to its number of tiles
            to this power: 1 is uniform over tiles, 0 over slides.
        organ_power: An organ's share of its stain is proportional to the sum of its slides' weights
            to this power: 1 changes nothing, 0 gives every organ the same share.
        stain_power: The same for the shares of the stain classes.
        stain_weights: float [len(STAIN_CLASSES)], factors on the weights of the slides of a class.
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
    """Rescale the weights of each class so that their sum is the old sum to this power."""
    if power == 1:
        return weights
    _, of = np.unique(classes, return_inverse=True)
    levelled: np.ndarray = weights * np.bincount(of, weights)[of] ** (power - 1)
    return levelled


def _weighted_without_replacement(
    weights: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices int64 [count]; none is drawn again before all have been drawn.

    Efraimidis and Spirakis 2006: the indices of the largest u ** (1 / w).
    """
    drawn: list[np.ndarray] = []
    left = count
    while left > 0:
        keys = np.log(rng.random(len(weights))) / np.maximum(weights, 1e-300)
        take = min(left, int((weights > 0).sum()))
        best = np.argpartition(-keys, take - 1)[:take]
        drawn.append(best[np.argsort(-keys[best])])
        left -= take
    return np.concatenate(drawn)
