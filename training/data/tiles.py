"""A corpus of unlabelled tiles, read one at a time.

It is made from tar shards with a table of tiles or of slides, or from any folder of images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pathencoder.errors import ImageError, SlideError
from pathencoder.images import decode_image
from training.data.contents import Contents
from training.data.jpeg_tiles import decode_plain
from training.data.manifest import STAIN_CLASSES
from training.data.open_files import Place
from training.data.sources import Source

__all__ = ["STAIN_CLASSES", "Corpus", "Parts", "Place", "Tiles"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The tiles of a corpus, cut where the slide or the shard changes.

    Attributes:
        starts: int64 [parts + 1], the first tile of each part, and the number of tiles.
        shard: int [parts], the number of the shard that holds each.
    """

    starts: np.ndarray
    shard: np.ndarray


class Tiles(Protocol):
    """The names and places of the tiles of a corpus."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The name of a tile, unique in the corpus."""

    def place(self, index: int) -> Place:
        """Where the bytes of a tile are.

        Raises:
            ImageError: Its shard is missing or ends before them.
        """

    def reader(self, index: int) -> Callable[[], np.ndarray] | None:
        """What reads a tile from its slide; None for one that is encoded, at `place`.

        It raises SlideError where the slide cannot be read.
        """

    def parts(self) -> Parts | None:
        """The shards of the tiles; None for tiles that are files of their own."""

    def content(self) -> str:
        """sha256 of names, sizes and samples of the bytes: equal for a copy of the corpus."""


@dataclass(frozen=True)
class Corpus:
    """Tiles sorted by slide, so that a slide is a range of indices.

    Attributes:
        tiles: Names and places of the tiles.
        slide_names: Names of the slides.
        slide_starts: int64 [slides + 1]; the tiles of slide s are
            slide_starts[s] : slide_starts[s + 1].
        slide_stains: int8 [slides], index into STAIN_CLASSES.
        slide_organs: int32 [slides], index into organs.
        organs: Names of the organs.
        digest: sha256 of the sorted keys (of the slides' ranges in a corpus by slides). Together
            with tiles.content() it is the identity of the corpus in logs and checkpoints.
        contents: Its tiles by licence, stain and scale.
        source: Where the bytes of the tiles are.
        tile_stains: int8 [tiles], only where the tiles of a slide may differ.
        tile_mpp: Float [tiles], micrometres per pixel; NaN where none is stated; None: nowhere, or
            the next two say it.
        run_mpp: Float [runs], the same of runs of tiles.
        run_starts: int64 [runs], the first tile of each run.
    """

    tiles: Tiles
    slide_names: list[str]
    slide_starts: np.ndarray
    slide_stains: np.ndarray
    slide_organs: np.ndarray
    organs: tuple[str, ...]
    digest: str
    contents: Contents
    source: Source
    tile_stains: np.ndarray | None = None
    tile_mpp: np.ndarray | None = None
    run_mpp: np.ndarray | None = None
    run_starts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, index: int, into: np.ndarray | None = None) -> np.ndarray:
        """The tile as uint8 [H, W, 3], decoded as `encode` does; `into` as in `decode`.

        Raises:
            ImageError: It cannot be read or decoded. The message names the tile.
            StoreError: An object store does not answer.
        """
        reader = self.tiles.reader(index)
        if reader is None:
            return self.decode(index, self._bytes(index), into)
        try:
            return reader()
        except SlideError as error:
            raise ImageError(f"tile {self.tiles.key(index)} cannot be read: {error}") from error

    def fetch(self, indices: Sequence[int]) -> dict[int, bytes | ImageError]:
        """The bytes of several tiles, read together, or why one cannot be read.

        Tiles that are read from their slides are left out.

        Raises:
            StoreError: An object store does not answer.
        """
        found: dict[int, bytes | ImageError] = {}
        places = {}
        for index in indices:
            if self.tiles.reader(index) is not None:
                continue
            try:
                places[index] = self.tiles.place(index)
            except ImageError as error:
                found[index] = error
        read = self.source.fetch(list(places.values()))
        return found | dict(zip(places, read, strict=True))

    def _bytes(self, index: int) -> bytes | ImageError:
        """The bytes of one tile, or why it cannot be read."""
        try:
            place = self.tiles.place(index)
        except ImageError as error:
            return error
        return self.source.fetch([place])[0]

    def decode(
        self, index: int, data: bytes | ImageError, into: np.ndarray | None = None
    ) -> np.ndarray:
        """A tile from its bytes.

        Args:
            index: The tile.
            data: Its bytes, or why they could not be read.
            into: uint8 [H, W, 3] that is returned if the tile has this size and is a plain JPEG.

        Raises:
            ImageError: It could not be read, or cannot be decoded. The message names the tile.
        """
        try:
            if isinstance(data, ImageError):
                raise data
            plain = None if into is None else decode_plain(data, into)
            return decode_image(data) if plain is None else plain
        except ImageError as error:
            reason = str(error if error is data else f"{self.tiles.place(index).file}, {error}")
            raise ImageError(f"tile {self.tiles.key(index)} cannot be decoded: {reason}") from error

    def stains_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N], index into STAIN_CLASSES, of the tiles at `indices`."""
        if self.tile_stains is not None:
            return np.asarray(self.tile_stains[indices], dtype=np.int64)
        return np.asarray(self.slide_stains[self.slides_of(indices)], dtype=np.int64)

    def mpp_of(self, index: int) -> float:
        """Micrometres per pixel of a tile as it is stored; NaN where none is stated."""
        if self.tile_mpp is not None:
            return float(self.tile_mpp[index])
        if self.run_mpp is not None and self.run_starts is not None:
            return float(self.run_mpp[np.searchsorted(self.run_starts, index, side="right") - 1])
        return math.nan

    def slides_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N]: the slide of each tile at `indices`."""
        return np.searchsorted(self.slide_starts, indices, side="right") - 1

    def stain_counts(self) -> dict[str, int]:
        """Number of tiles of each stain class in the corpus, in descending order."""
        if self.tile_stains is not None:
            counts = np.bincount(self.tile_stains, minlength=len(STAIN_CLASSES))
        else:
            counts = np.bincount(
                self.slide_stains, weights=np.diff(self.slide_starts), minlength=len(STAIN_CLASSES)
            )
        order = np.argsort(-counts, kind="stable")
        return {STAIN_CLASSES[i]: int(counts[i]) for i in order if counts[i]}

    @property
    def keys(self) -> list[str]:
        """The names of all tiles."""
        return [self.tiles.key(i) for i in range(len(self))]

    @property
    def stains(self) -> np.ndarray:
        """int64 [tiles]: index into STAIN_CLASSES of all tiles."""
        return self.stains_of(np.arange(len(self)))
