"""Two corpora as one: tiles of shards, and tiles that are read from slides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.contents import Contents, Count, Scale
from training.data.open_files import Place
from training.data.tiles import Corpus, Parts, Tiles


@dataclass(frozen=True)
class JoinedTiles:
    """The tiles of one corpus, then those of another."""

    first: Tiles
    second: Tiles

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def key(self, index: int) -> str:
        """The name of a tile."""
        tiles, at = self._of(index)
        return tiles.key(at)

    def place(self, index: int) -> Place:
        """Where the bytes of a tile are."""
        tiles, at = self._of(index)
        return tiles.place(at)

    def reader(self, index: int) -> Callable[[], np.ndarray] | None:
        """What reads a tile from its slide; None for an encoded one."""
        tiles, at = self._of(index)
        return tiles.reader(at)

    def parts(self) -> Parts | None:
        """The parts of both, if both have any."""
        one, other = self.first.parts(), self.second.parts()
        if one is None or other is None:
            return None
        starts = np.concatenate([one.starts[:-1], other.starts + len(self.first)])
        return Parts(starts, np.concatenate([one.shard, other.shard + int(one.shard.max()) + 1]))

    def content(self) -> str:
        """sha256 of the contents of both."""
        both = f"{self.first.content()} {self.second.content()}"
        return hashlib.sha256(both.encode()).hexdigest()

    def _of(self, index: int) -> tuple[Tiles, int]:
        if index < len(self.first):
            return self.first, index
        return self.second, index - len(self.first)


def joined(first: Corpus, second: Corpus) -> Corpus:
    """A corpus of the tiles of two.

    Args:
        first: Its source is that of the whole.
        second: Its tiles are read from slides or local files. No slide is in both.

    Returns:
        The tiles of `first`, then those of `second`, each sorted by slide.
    """
    organs = tuple(sorted({*first.organs, *second.organs}))
    number = {organ: i for i, organ in enumerate(organs)}
    of_organ = [
        np.array([number[corpus.organs[i]] for i in corpus.slide_organs], np.int32)
        for corpus in (first, second)
    ]
    both = f"{first.digest} {second.digest}"
    runs = [_runs(first), _runs(second)]
    differing = first.tile_stains is not None or second.tile_stains is not None
    return Corpus(
        tiles=JoinedTiles(first.tiles, second.tiles),
        slide_names=[*first.slide_names, *second.slide_names],
        slide_starts=np.concatenate([first.slide_starts[:-1], second.slide_starts + len(first)]),
        slide_stains=np.concatenate([first.slide_stains, second.slide_stains]),
        slide_organs=np.concatenate(of_organ),
        organs=organs,
        digest=hashlib.sha256(both.encode()).hexdigest(),
        contents=_contents(first.contents, second.contents),
        source=first.source,
        tile_stains=(
            np.concatenate([c.stains for c in (first, second)]).astype(np.int8)
            if differing
            else None
        ),
        run_starts=np.concatenate([runs[0][0], runs[1][0] + len(first)]),
        run_mpp=np.concatenate([runs[0][1], runs[1][1]]),
    )


def _runs(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """The first tile and the scale of each run of tiles of one scale."""
    if corpus.tile_mpp is not None:
        return np.arange(len(corpus)), corpus.tile_mpp
    if corpus.run_mpp is not None and corpus.run_starts is not None:
        return corpus.run_starts, corpus.run_mpp
    return np.zeros(1, np.int64), np.full(1, np.nan, np.float32)


def _contents(one: Contents, other: Contents) -> Contents:
    return Contents(
        _counts(one.licences, other.licences),
        _counts(one.stains, other.stains),
        _scale(one.scale, other.scale),
    )


def _counts(one: dict[str, Count], other: dict[str, Count]) -> dict[str, Count]:
    out = dict(one)
    for name, count in other.items():
        there = out.get(name, Count(0, 0))
        out[name] = Count(there.tiles + count.tiles, there.slides + count.slides)
    return out


def _scale(one: Scale | None, other: Scale | None) -> Scale | None:
    """The scales of both; the median is that of the larger part."""
    if one is None or other is None:
        return one or other
    larger = max(one, other, key=lambda scale: scale.tiles)
    low, high = min(one.low, other.low), max(one.high, other.high)
    return Scale(one.tiles + other.tiles, low, larger.median, high)
