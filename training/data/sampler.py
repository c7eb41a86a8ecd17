"""The tiles of a step, as a pure function of seed and step, so that training resumes at no cost.

A request to an object store costs as much as decoding a tile, and several neighbouring tiles need
but one. So tiles may be drawn in runs of `run` neighbours: the steps are divided into blocks of
`run` steps, and each place in the batch takes its run of one slide through a block, a tile a step.

What stays as without runs: at every step each tile has exactly the same probability, as the first
tile of a run is drawn as a single tile is and the others follow at the same distances, from the
last tile of a slide to its first. No slide is drawn twice for a batch while there are enough, and
no tile while there are others. A step depends on the seed and its number alone, and a run has each
of its tiles once, in shuffled order; only a slide of fewer tiles than a run has some again.

What changes: the batches of a block are of the same slides, and of tiles that are neighbours in
their shards (often on the slide, too). All places change their runs together: were they to change
in turn, the tiles of a batch would be of several draws, and a slide could be in it twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from pathencoder.errors import ConfigError
from training.data.tiles import Corpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampler:
    """Draws slides in proportion to their weights, then one tile of each.

    No slide is drawn twice for a batch while there are enough slides, and no tile while there are
    other tiles. Memory grows with the number of slides: a tile is an offset into its slide's range.

    Attributes:
        slide_starts: int64 [slides + 1], as in Corpus.
        weights: float64 [slides], sum 1.
        batch: Tiles of a step, over all processes.
        seed: The seed of the training.
        run: Neighbouring tiles that a place in the batch takes in successive steps; 1: each step
            draws all tiles anew.
    """

    slide_starts: np.ndarray
    weights: np.ndarray
    batch: int
    seed: int
    run: int = field(default=1, kw_only=True)

    @property
    def tiles(self) -> int:
        """Number of tiles that can be drawn: those of slides whose weight is not 0."""
        return int(self._sizes()[self.weights > 0].sum())

    def draw(self, step: int) -> np.ndarray:
        """The tile indices of a step, int64 [batch], over all processes."""
        tiles: np.ndarray = self.block(step)[step % self.run]
        return tiles

    def block(self, step: int) -> np.ndarray:
        """The tile indices of all steps of the block of a step.

        Returns:
            int64 [run, batch]. The first row is of step `step - step % run`, and a column has the
            tiles of one run.
        """
        first = step - step % self.run
        tiles = self._draw(self.batch, np.random.default_rng((self.seed, first)))
        if self.run == 1:
            return tiles[None]
        # One order for all runs: where two overlap, they are never at the same tile.
        order = np.random.default_rng((self.seed, first, 2)).permutation(self.run)
        slides = np.searchsorted(self.slide_starts, tiles, side="right") - 1
        begin, size = self.slide_starts[slides], self._sizes()[slides]
        block: np.ndarray = begin + (tiles - begin + order[:, None]) % size
        return block

    def spares(self, step: int) -> np.ndarray:
        """Tiles that replace those of a step that cannot be decoded.

        Returns:
            int64 [M], none of them in `draw(step)`: all other tiles of a small corpus, else at
            least three times a batch.
        """
        count = min(4 * self.batch, self.tiles)
        others = self._draw(count, np.random.default_rng((self.seed, step, 1)))
        spare: np.ndarray = others[~np.isin(others, self.draw(step))]
        return spare

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        if np.count_nonzero(self.weights) < count:
            return self._draw_several_of_a_slide(count, rng)
        slides = _weighted_without_replacement(self.weights, count, rng)
        first, last = self.slide_starts[slides], self.slide_starts[slides + 1]
        tiles: np.ndarray = first + (rng.random(count) * (last - first)).astype(np.int64)
        return tiles

    def _draw_several_of_a_slide(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """The same where slides must be drawn again: each time another tile of the slide."""
        drawn = [
            self._draw_distinct(min(self.tiles, count - begun), rng)
            for begun in range(0, count, self.tiles)
        ]
        return np.concatenate(drawn)

    def _draw_distinct(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Different tiles, int64 [count]: a slide takes part in each round until it has no more."""
        left, rounds, missing = self._sizes(), [], count
        while missing > 0:
            weights = np.where(left > 0, self.weights, 0.0)
            take = min(missing, int(np.count_nonzero(weights)))
            rounds.append(_weighted_without_replacement(weights, take, rng))
            left[rounds[-1]] -= 1
            missing -= take
        slides = np.concatenate(rounds)
        offsets = np.empty(count, dtype=np.int64)
        sizes = self._sizes()
        for slide, times in zip(*np.unique(slides, return_counts=True), strict=True):
            offsets[slides == slide] = rng.choice(sizes[slide], times, replace=False)
        tiles: np.ndarray = self.slide_starts[slides] + offsets
        return tiles

    def _sizes(self) -> np.ndarray:
        """int64 [slides]: number of tiles of each slide."""
        sizes: np.ndarray = np.diff(self.slide_starts)
        return sizes


def make_sampler(
    corpus: Corpus,
    *,
    batch: int,
    seed: int,
    slide_power: float = 0.5,
    organ_power: float = 1.0,
    stain_power: float = 1.0,
    stain_weights: np.ndarray | None = None,
    run: int = 1,
) -> Sampler:
    """A sampler with weights on three levels: stain class, organ within it, slide within that.

    Args:
        corpus: The tiles.
        batch: Tiles of a step, over all processes.
        seed: The seed of the training.
        slide_power: A slide's share of its stain and organ is proportional to its number of tiles
            to this power: 1 is uniform over tiles, 0 over slides.
        organ_power: An organ's share of its stain is proportional to the sum of its slides' weights
            to this power: 1 changes nothing, 0 gives every organ the same share.
        stain_power: The same for the shares of the stain classes.
        stain_weights: float [len(STAIN_CLASSES)], factors on the weights of the slides of a class.
        run: Neighbouring tiles that a place in the batch takes in successive steps.

    Raises:
        ConfigError: The weights leave no tile to draw.
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
    if not weights.sum() > 0:
        raise ConfigError(
            "data.stain_weights: every stain of the corpus has weight 0, which leaves no tile to"
            " draw. Give a stain of the corpus a weight above 0"
        )
    sampler = Sampler(corpus.slide_starts, weights / weights.sum(), batch, seed, run=run)
    _warn_of_small_corpus(sampler)
    return sampler


def _warn_of_small_corpus(sampler: Sampler) -> None:
    if sampler.batch > sampler.tiles:
        log.warning(
            "data.batch=%d is larger than the corpus, which has %d tiles to draw: every batch has"
            " tiles twice. Choose a smaller batch, or add tiles",
            sampler.batch,
            sampler.tiles,
        )


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
    """Different indices, int64 [count], of weights that are not 0, of which there are enough.

    Efraimidis and Spirakis 2006: the indices of the largest u ** (1 / w).
    """
    keys = np.log(rng.random(len(weights))) / np.maximum(weights, 1e-300)
    best = np.argpartition(-keys, count - 1)[:count]
    ordered: np.ndarray = best[np.argsort(-keys[best])]
    return ordered
