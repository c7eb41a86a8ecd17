"""A corpus with a row a slide (slides.csv), for archives: its index grows with the slides, whatever their tiles.

Columns: slide, shard, first, tiles: the slide's tiles are members first .. first + tiles - 1 of the shard. A slide may have several
rows. Optional: patient, stain_class, organ, licence, src, split, use, as in manifest.csv.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from training.data.corpus import Corpus
from training.data.manifest import Wanted, digest_of, refuse_shared_patients, stain_index
from training.data.shards import Place, ranges_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RangeTiles:
    """Ranges of shards' members, sorted by slide. starts: int64 [ranges + 1]; slides, shard, first: int [ranges]."""

    starts: np.ndarray
    slide: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    slide_names: list[str]
    shards: list[Path]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def key(self, index: int) -> str:
        """Slide, shard and member: slide/shard.tar#17."""
        r, member = self._member(index)
        return f"{self.slide_names[self.slide[r]]}/{self.shards[self.shard[r]].name}#{member}"

    def place(self, index: int) -> Place:
        """Its bytes. Raises ImageError when the shard is missing or has fewer members."""
        r, member = self._member(index)
        shard = self.shards[self.shard[r]]
        if not shard.is_file():
            raise ImageError(f"shard {shard} is missing")
        ranges = ranges_of(shard)
        if member >= len(ranges):
            raise ImageError(f"shard {shard} has {len(ranges)} tiles only")
        offset, size = ranges[member]
        return Place(shard, int(offset), int(size))

    def _member(self, index: int) -> tuple[int, int]:
        r = int(np.searchsorted(self.starts, index, side="right")) - 1
        return r, int(self.first[r] + index - self.starts[r])


def read(root: Path, wanted: Wanted) -> Corpus | None:
    """The wanted rows of root/slides.csv; None when there are none. Raises ConfigError for a row without whole numbers."""
    manifest = root / "slides.csv"
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    refuse_shared_patients(rows, manifest)
    here = {p.name for p in root.glob("*.tar")}
    rows = [r for r in rows if wanted.takes(r)]
    _name_missing(rows, here, root)
    rows = [r for r in rows if r["shard"] in here and r["tiles"] != "0"]
    if not rows:
        return None
    first, count = _numbers(rows, manifest)
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["slide"], rows[i]["shard"], first[i]))
    return _corpus([rows[i] for i in order], first[order], count[order], root)


def _numbers(rows: list[dict[str, str]], manifest: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        first, count = (np.array([int(r[name]) for r in rows], dtype=np.int64) for name in ("first", "tiles"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{manifest}: every row needs whole numbers in `first` and `tiles`: {error}") from None
    if first.min() < 0 or count.min() < 0:
        raise ConfigError(f"{manifest}: `first` and `tiles` must not be negative")
    return first, count


def _name_missing(rows: list[dict[str, str]], here: set[str], root: Path) -> None:
    lost = Counter(r["shard"] for r in rows if r["shard"] not in here)
    for shard, count in sorted(lost.items())[:10]:
        log.warning("skipped: shard %s with %d rows of slides.csv is missing", root / shard, count)
    if len(lost) > 10:
        log.warning("skipped: %d more shards are missing", len(lost) - 10)


def _corpus(rows: list[dict[str, str]], first: np.ndarray, count: np.ndarray, root: Path) -> Corpus:
    starts = np.concatenate([[0], np.cumsum(count)])
    slides, slide_first, slide_of = np.unique([r["slide"] for r in rows], return_index=True, return_inverse=True)
    shards, shard_of = np.unique([r["shard"] for r in rows], return_inverse=True)
    organs, organ_of = np.unique([rows[i].get("organ") or "unknown" for i in slide_first], return_inverse=True)
    names = slides.tolist()
    return Corpus(
        tiles=RangeTiles(starts, slide_of.astype(np.int32), shard_of.astype(np.int32), first, names, [root / s for s in shards.tolist()]),
        slide_names=names,
        slide_starts=np.append(starts[slide_first], starts[-1]),
        slide_stains=np.array([stain_index(rows[i]) for i in slide_first], dtype=np.int8),
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest_of([f"{r['slide']} {r['shard']} {r['first']} {r['tiles']}" for r in rows]),
    )
