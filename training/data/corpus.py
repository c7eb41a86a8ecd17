"""A corpus of unlabelled tiles: tar shards with a manifest of tiles or of slides, or any folder of images. Reads one tile at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.images import decode_image
from training.data import shards
from training.data.manifest import STAIN_CLASSES, Wanted
from training.data.shards import Place

__all__ = ["STAIN_CLASSES", "Corpus", "Place", "Tiles", "open_corpus"]

log = logging.getLogger(__name__)


class Tiles(Protocol):
    """Where tile i lies and what it is called."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Its name, unique in the corpus."""

    def place(self, index: int) -> Place:
        """Its bytes. Raises ImageError when its shard ends before them."""


@dataclass(frozen=True)
class Corpus:
    """Tiles sorted by slide, so that a slide is a range of indices.

    slide_starts: int64 [slides + 1], tiles of slide s are slide_starts[s] : slide_starts[s + 1]. slide_stains: int8 [slides], index into
    STAIN_CLASSES. slide_organs: int32 [slides], index into organs. tile_stains: int8 [tiles], only where a slide's tiles may differ.
    digest: sha256 of the sorted keys (of the slides' ranges in a corpus by slides), its identity in logs and checkpoints.
    """

    tiles: Tiles
    slide_names: list[str]
    slide_starts: np.ndarray
    slide_stains: np.ndarray
    slide_organs: np.ndarray
    organs: tuple[str, ...]
    digest: str
    tile_stains: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, index: int) -> np.ndarray:
        """The tile as uint8 [H, W, 3], decoded as `encode` does. Raises ImageError naming the tile when it cannot be decoded."""
        try:
            place = self.tiles.place(index)
            return decode_image(shards.read(place), str(place.file))
        except (OSError, ImageError) as error:
            raise ImageError(f"tile {self.tiles.key(index)} cannot be decoded: {error}") from error

    def stains_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N], index into STAIN_CLASSES, of the tiles at `indices`."""
        if self.tile_stains is not None:
            return np.asarray(self.tile_stains[indices], dtype=np.int64)
        return np.asarray(self.slide_stains[self.slides_of(indices)], dtype=np.int64)

    def slides_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N]: the slide of each tile at `indices`."""
        return np.searchsorted(self.slide_starts, indices, side="right") - 1

    def stain_counts(self) -> dict[str, int]:
        """Tiles of each stain class there is, most first."""
        if self.tile_stains is not None:
            counts = np.bincount(self.tile_stains, minlength=len(STAIN_CLASSES))
        else:
            counts = np.bincount(self.slide_stains, weights=np.diff(self.slide_starts), minlength=len(STAIN_CLASSES))
        order = np.argsort(-counts, kind="stable")
        return {STAIN_CLASSES[i]: int(counts[i]) for i in order if counts[i]}

    @property
    def keys(self) -> list[str]:
        """The names of all tiles: as long as the corpus."""
        return [self.tiles.key(i) for i in range(len(self))]

    @property
    def stains(self) -> np.ndarray:
        """int64 [tiles]: as long as the corpus."""
        return self.stains_of(np.arange(len(self)))


def open_corpus(root: Path, *, licences: Sequence[str] = (), stains: Sequence[str] = (), without: Sequence[str] = ()) -> Corpus:
    """Index a folder.

    With slides.csv (a row a slide or part of one) or manifest.csv (a row a tile) beside tar shards:
    its rows that are used and of no held-out split. Else: every image below it that `encode` would
    take, the parent folder as the slide. What is left out is logged.

    Args:
        root: The folder.
        licences: Only rows of these licences (P, N); empty: all.
        stains: Only rows of these stain classes; empty: all.
        without: No rows of these sources (`src`).

    Returns:
        The tiles; none of them is decoded yet.

    Raises:
        ConfigError: Nothing is left, a table has a value that is not known, a patient or slide is in
            two splits, a filter asks for what the table lacks, or table and shards do not fit.
    """
    from training.data import by_slide, by_tile

    if not root.is_dir():
        raise ConfigError(f"data.root {str(root)!r} is not a folder")
    shards.close_files()
    wanted = Wanted(tuple(licences), tuple(stains), tuple(without))
    tables = [name for name in ("slides.csv", "manifest.csv") if (root / name).exists()]
    if len(tables) > 1:
        log.warning("%s has slides.csv and manifest.csv: slides.csv alone is read", root)
    if not tables:
        corpus = by_tile.read_folder(root, wanted)
    elif tables[0] == "slides.csv":
        corpus = by_slide.read(root, wanted)
    else:
        corpus = by_tile.read_shards(root, wanted)
    if corpus is None:
        asked = f"with licences {wanted.licences or 'any'}, stains {wanted.stains or 'any'}, without {wanted.without or 'none'}"
        raise ConfigError(
            f"no tiles in {str(root)!r} {asked}. Wanted: images in any folder below it, or tar shards with a manifest.csv or slides.csv. "
            "The log says what was left out"
        )
    _say_what_is_odd(corpus)
    return corpus


def _say_what_is_odd(corpus: Corpus) -> None:
    if len(corpus.slide_names) == 1:
        log.warning(
            "all %d tiles belong to one slide (%r): batches cannot be balanced over slides, and what is learnt will be this slide's. "
            "Put the tiles of each slide into a folder of their own",
            len(corpus),
            corpus.slide_names[0],
        )
