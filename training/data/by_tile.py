"""A corpus with an entry per tile: a folder of images; training/data/by_manifest.py has shards.

Memory grows with the number of tiles.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from pathencoder.walk import printable, walk
from training.data.content import content_of
from training.data.contents import contents_of
from training.data.manifest import STAIN_CLASSES, Wanted, digest_of
from training.data.open_files import Place
from training.data.sources import Folder
from training.data.tar import why_no_tile
from training.data.tiles import Corpus, Parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowTiles:
    """The key and the place of every tile.

    Attributes:
        keys: Their names.
        places: Their files, or ranges of shards.
    """

    keys: Sequence[str]
    places: Sequence[Place]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The name of a tile."""
        return self.keys[index]

    def place(self, index: int) -> Place:
        """Where the bytes of a tile are."""
        return self.places[index]

    def reader(self, index: int) -> None:
        """None: the tiles are encoded."""

    def parts(self) -> Parts | None:
        """Runs of tiles of one shard; None for a folder of images."""
        if not isinstance(self.places, Ranges):
            return None
        shard = self.places.shard
        cut = np.flatnonzero(np.append(True, shard[1:] != shard[:-1]))
        return Parts(np.append(cut, len(shard)), shard[cut])

    def content(self) -> str:
        """sha256 of names, sizes and samples of the bytes."""
        return content_of(self.keys, self.places)


class Ranges(Sequence[Place]):
    """Places in shards.

    Args:
        files: The shards.
        shard: int32 [places], index into files.
        offset: int64 [places].
        size: int64 [places].
    """

    def __init__(
        self, files: list[str], shard: np.ndarray, offset: np.ndarray, size: np.ndarray
    ) -> None:
        self.files, self.shard, self.offset, self.size = files, shard, offset, size

    def __len__(self) -> int:
        return len(self.shard)

    @overload
    def __getitem__(self, index: int) -> Place: ...
    @overload
    def __getitem__(self, index: slice) -> list[Place]: ...
    def __getitem__(self, index: int | slice) -> Place | list[Place]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        file = self.files[self.shard[index]]
        return Place(file, int(self.offset[index]), int(self.size[index]))


@dataclass(frozen=True)
class Facts:
    """What is known of each tile, in their order.

    Attributes:
        slides: Names of the slides, sorted.
        slide_of: int [tiles], index into slides, ascending.
        stains: int8 [tiles], index into STAIN_CLASSES.
        organs: In lower case.
        licences: Licence classes; "" for none.
        mpp: Micrometres per pixel; NaN for none.
    """

    slides: list[str]
    slide_of: np.ndarray
    stains: np.ndarray
    organs: Sequence[str]
    licences: Sequence[str]
    mpp: Sequence[float]


def corpus_of(tiles: RowTiles, facts: Facts, digest: str, source: Folder) -> Corpus:
    """The corpus of tiles that are sorted by slide."""
    first = np.searchsorted(facts.slide_of, np.arange(len(facts.slides)))
    organs, organ_of = np.unique([facts.organs[i] for i in first.tolist()], return_inverse=True)
    return Corpus(
        tiles=tiles,
        slide_names=facts.slides,
        slide_starts=np.append(first, len(tiles)).astype(np.int64),
        slide_stains=facts.stains[first],
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest,
        contents=contents_of(
            [facts.slides[i] for i in facts.slide_of.tolist()],
            facts.licences,
            [STAIN_CLASSES[i] for i in facts.stains.tolist()],
            facts.mpp,
        ),
        source=source,
        tile_stains=facts.stains,
        tile_mpp=np.array(facts.mpp, dtype=np.float32),
    )


def read_folder(root: Path, wanted: Wanted) -> Corpus | None:
    """Read every image in a folder that `encode` accepts; its parent folder is its slide.

    Args:
        root: The folder. Links are followed, hidden files and folders are left out.
        wanted: Must ask for all: without a table, nothing is known of the images.

    Returns:
        The corpus; None when there is no image.

    Raises:
        ConfigError: A filter was asked for.
    """
    wanted.refuse(root)
    found = walk(root)
    left_out = Counter({"hidden": found.hidden} if found.hidden else {})
    for entry in found.left_out:
        log.warning("left out: %s: %s", printable(entry.path), entry.reason)
    rows = []
    for file in found.files:
        path = file.relative_to(root)
        if reason := why_no_tile(path.as_posix()):
            left_out[reason] += 1
        else:
            rows.append((printable(path.parent.as_posix()), printable(path.as_posix()), file))
    if not rows:
        left_out.pop("no image (.tar)", None)  # without images, the tars are read
    if left_out:
        log.info("left out of %s: %s", root, listed(left_out))
    if not rows:
        return None
    rows.sort(key=lambda row: row[:2])
    keys = [key for _, key, _ in rows]
    slides, slide_of = np.unique([slide for slide, _, _ in rows], return_inverse=True)
    facts = Facts(
        slides.tolist(),
        slide_of,
        np.full(len(rows), STAIN_CLASSES.index("unknown"), np.int8),
        ["unknown"] * len(rows),
        [""] * len(rows),
        [math.nan] * len(rows),
    )
    tiles = RowTiles(keys, [Place(file) for _, _, file in rows])
    return corpus_of(tiles, facts, digest_of(keys), Folder(root))


def listed(counts: Counter[str]) -> str:
    """Counts for a message, the largest first."""
    return ", ".join(f"{count} ({reason})" for reason, count in counts.most_common())
