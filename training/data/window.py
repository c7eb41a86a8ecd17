"""Draws from a window of open shards, for corpora of more shards than can stay open.

A window holds `window` shards. Every step draws its tiles from the shards of its window only, and
the window changes slowly: an eighth of it at a time, each shard after a few hundred tiles.

What stays as without a window: over a run, every tile is drawn as often, as shards enter the window
in proportion to the sum of their tiles' probabilities (systematic sampling, Madow 1949), and their
tiles then share equally. Shards are sampled in the order of their stain and organ, so that every
window has nearly their shares. No slide is drawn twice for a batch while the window has enough, and
no tile while it has others. A step depends on the seed and its number alone. Where tiles are drawn
in runs (training/data/sampler.py), a block of steps has the window of its first step, and the
neighbours of a tile are those of its slide in the window.

What changes: the tiles of neighbouring steps are of the same shards, and tiles of slides that are
not in the window cannot be drawn. A slide that lies in several shards of the window is drawn by the
sum of their shares, and then each of its tiles in the window equally often.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from training.data import open_files
from training.data.sampler import Sampler
from training.data.tiles import Corpus, Parts

log = logging.getLogger(__name__)

AUTOMATIC = 2048  # shards of the window of a corpus of more shards than can stay open
_GROUPS = 8  # parts of the window that change at different steps
_VISIT = 256  # tiles that are drawn of a shard before it leaves the window, or ...
_SHARE = 0.25  # ... this share of its tiles, if that is less,
_LEAST = 8  # but so many


@dataclass(frozen=True)
class _View:
    """The tiles of a window, as a corpus of their own.

    Attributes:
        sampler: Of these tiles, numbered from 0.
        starts: int64 [parts + 1], the first of them in each part.
        first: int64 [parts], the first tile of each part in the whole corpus.
    """

    sampler: Sampler
    starts: np.ndarray
    first: np.ndarray

    def in_corpus(self, tiles: np.ndarray) -> np.ndarray:
        part = np.searchsorted(self.starts, tiles, side="right") - 1
        found: np.ndarray = self.first[part] + tiles - self.starts[part]
        return found


@dataclass(frozen=True)
class WindowSampler(Sampler):
    """Draws as Sampler does, from the shards of a window.

    Attributes:
        window: Shards in a window.
        parts: The tiles of the corpus by shard.
        kinds: int [slides], the stain and organ of each.
    """

    window: int
    parts: Parts
    kinds: np.ndarray
    # what is made from these once
    _part: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    _draws: dict[tuple[int, int], np.ndarray] = field(
        default_factory=dict, repr=False, compare=False
    )
    _views: dict[tuple[int, ...], _View] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts, shard = self.parts.starts, self.parts.shard
        slide = np.searchsorted(self.slide_starts, starts[:-1], side="right") - 1
        of_slide = np.diff(self.slide_starts)[slide]
        weight = self.weights[slide] * np.diff(starts) / of_slide
        shards = int(shard.max()) + 1
        share = np.bincount(shard, weight, shards)
        by_weight = np.lexsort((weight, shard))
        last = np.searchsorted(shard[by_weight], np.arange(shards), side="right") - 1
        order = np.argsort(shard, kind="stable")
        self._part.update(
            slide=slide,
            weight=weight,
            share=share,
            kind=self.kinds[slide[by_weight[last]]],  # that of the heaviest part
            by_shard=order,
            of_shard=np.searchsorted(shard[order], np.arange(shards + 1)),
        )

    @property
    def period(self) -> int:
        """Steps for which a shard stays in the window."""
        shards = max(1, int(np.count_nonzero(self._part["share"])))
        visit = min(_VISIT, max(_LEAST, int(_SHARE * self.tiles / shards)))
        return max(1, -(-visit * self.window // self.batch))

    def block(self, step: int) -> np.ndarray:
        """The tile indices of all steps of the block of a step, int64 [run, batch]."""
        view = self._view(step)
        return view.in_corpus(view.sampler.block(step))

    def spares(self, step: int) -> np.ndarray:
        """Tiles of the window that replace those of a step that cannot be decoded."""
        view = self._view(step)
        return view.in_corpus(view.sampler.spares(step))

    def shards_at(self, step: int) -> np.ndarray:
        """The shards in the window of a step, int [window]; large shards several times."""
        groups = self._groups()
        now = [(group, self._generation(group, len(groups), step)) for group in range(len(groups))]
        drawn = {
            key: self._draws[key] if key in self._draws else self._drawn(*key, groups[key[0]])
            for key in now
        }
        self._draws.clear()
        self._draws.update(drawn)
        return np.concatenate(list(drawn.values()))

    def _groups(self) -> list[int]:
        """Shards of each group."""
        count = min(_GROUPS, self.window)
        return [len(part) for part in np.array_split(np.arange(self.window), count)]

    def _generation(self, group: int, groups: int, step: int) -> int:
        """How often a group has changed before a step."""
        return (step + group * self.period // groups) // self.period

    def _drawn(self, group: int, generation: int, size: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 2, group, generation))
        order = np.lexsort((rng.random(len(self._part["share"])), self._part["kind"]))
        ends = np.cumsum(self._part["share"][order])
        at = np.minimum((np.arange(size) + rng.random()) / size, 1 - 1e-12) * ends[-1]
        drawn: np.ndarray = order[np.searchsorted(ends, at, side="right")]
        return drawn

    def _view(self, step: int) -> _View:
        """The window of a step: that of the first step of its block."""
        step -= step % self.run
        count = len(self._groups())
        now = tuple(self._generation(group, count, step) for group in range(count))
        view = self._views.get(now)
        if view is None:
            view = self._made(step)
            self._views.clear()
            self._views[now] = view
        return view

    def _made(self, step: int) -> _View:
        of_shard, by_shard = self._part["of_shard"], self._part["by_shard"]
        shards, times = np.unique(self.shards_at(step), return_counts=True)
        counts = of_shard[shards + 1] - of_shard[shards]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        parts = by_shard[np.repeat(of_shard[shards], counts) + within]
        share = np.repeat(times / self._part["share"][shards], counts)
        order = np.argsort(parts)  # by slide
        parts, weight = parts[order], (self._part["weight"][parts] * share)[order]
        sizes = np.diff(self.parts.starts)[parts]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        _, first = np.unique(self._part["slide"][parts], return_index=True)
        weights = np.add.reduceat(weight, first)
        sampler = Sampler(
            np.append(starts[first], starts[-1]),
            weights / weights.sum(),
            self.batch,
            self.seed,
            run=self.run,
        )
        return _View(sampler, starts, self.parts.starts[parts])


def in_window(sampler: Sampler, corpus: Corpus, window: int | None) -> Sampler:
    """A sampler that draws from a window of shards, where that is asked for or needed.

    Args:
        sampler: Of the whole corpus.
        corpus: The tiles.
        window: Shards in the window; 0: all. None: all, or 2,048 of a corpus of more than 4,096
            shards, which could not all stay open.

    Returns:
        `sampler`, or one that draws from a window.
    """
    parts = corpus.tiles.parts()
    if parts is None:
        return sampler
    shards = len(np.unique(parts.shard))
    size = window
    if size is None:
        size = AUTOMATIC if shards > open_files.MOST_FILES else 0
    allowed = open_files.allow(min(size, shards) or shards)
    if not 0 < size < shards:
        return sampler
    made = WindowSampler(
        sampler.slide_starts,
        sampler.weights,
        sampler.batch,
        sampler.seed,
        run=sampler.run,
        window=size,
        parts=_cut_by_slide(parts, sampler.slide_starts),
        kinds=corpus.slide_stains.astype(np.int64) * len(corpus.organs) + corpus.slide_organs,
    )
    _describe(made, shards, allowed, automatic=window is None)
    return made


def _cut_by_slide(parts: Parts, slide_starts: np.ndarray) -> Parts:
    starts = np.union1d(parts.starts, slide_starts)
    return Parts(starts, parts.shard[np.searchsorted(parts.starts, starts[:-1], side="right") - 1])


def _describe(made: WindowSampler, shards: int, allowed: int, *, automatic: bool) -> None:
    log.info(
        "tiles are drawn from a window of %d of %d shards (data.window%s); a shard stays in it for"
        " %d steps",
        made.window,
        shards,
        ", automatic above 4,096 shards" if automatic else "",
        made.period,
    )
    if allowed < made.window:
        log.warning(
            "only %d shards can stay open at a time, fewer than the window: raise the limit of open"
            " files of this process (ulimit -n) to %d",
            allowed,
            made.window * open_files.FILES_PER_SHARD,
        )
    inside = made.tiles * made.window // shards
    if inside < 4 * made.batch:
        log.warning(
            "data.window=%d holds about %d tiles, data.batch is %d: choose a larger window",
            made.window,
            inside,
            made.batch,
        )
