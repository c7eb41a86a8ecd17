"""A corpus with a row a slide (slides.csv), for archives.

Its index grows with the slides, whatever their tiles.

Columns: slide, shard, first, tiles: the slide's tiles are images first .. first + tiles - 1 of the
shard. Images alone are counted, from
0, in tar order: folders, side files, hidden files and label maps (names that end in .labels or
.types) do not count. A slide may have
several rows. Optional: patient, stain_class, organ, licence, src, split, use, as in manifest.csv.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.tables import Table, read_table
from training.data.corpus import Corpus
from training.data.manifest import (
    STAIN_CLASSES,
    Rows,
    Wanted,
    digest_of,
    name_shards_alike,
    read_rows,
    say_what_differs,
)
from training.data.shards import Place, indexed, ranges_of
from training.data.tar import members_of
from training.data.values import name_of

log = logging.getLogger(__name__)

_MANY = 50  # shards without an index: opening takes long


@dataclass(frozen=True)
class RangeTiles:
    """Ranges of shards' images, sorted by slide. starts: int64 [ranges + 1].

    slides, shard, first: int [ranges].
    """

    starts: np.ndarray
    slide: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    slide_names: list[str]
    shards: list[Path]
    shard_names: list[str]  # as in the table

    def __len__(self) -> int:
        return int(self.starts[-1])

    def key(self, index: int) -> str:
        """Slide, shard and member: slide/shard.tar#17."""
        r, member = self._member(index)
        return f"{self.slide_names[self.slide[r]]}/{self.shard_names[self.shard[r]]}#{member}"

    def place(self, index: int) -> Place:
        """Its bytes. Raises ImageError when the shard is missing or has fewer members."""
        r, member = self._member(index)
        shard = self.shards[self.shard[r]]
        try:
            ranges = ranges_of(shard)
        except FileNotFoundError:
            raise ImageError(f"shard {shard} is missing") from None
        if member >= len(ranges):
            raise ImageError(f"shard {shard} has {len(ranges)} tiles only")
        offset, size = ranges[member].tolist()
        if offset < 0 or size < 0:
            raise ImageError(
                f"the index of shard {shard} is damaged at image {member}: write it anew"
            )
        return Place(shard, offset, size)

    def _member(self, index: int) -> tuple[int, int]:
        r = int(np.searchsorted(self.starts, index, side="right")) - 1
        return r, int(self.first[r] + index - self.starts[r])


def read(root: Path, wanted: Wanted) -> Corpus | None:
    """The wanted rows of slides.csv, as far as their shards hold them.

    Args:
        root: A folder with slides.csv.
        wanted: Which rows.

    Returns:
        The corpus; None when there are no rows.

    Raises:
        ConfigError: The table lacks a column or has a value that is not known (see read_rows), two
            ranges overlap, a range ends beyond the images of a whole shard, or a slide has several
            stain classes. The message names the rows.
    """
    table = read_table(root / "slides.csv", required=("slide", "shard", "first", "tiles"))
    name_shards_alike(table)
    rows = read_rows(table, wanted)
    if not table.rows:
        return None
    ranges = _ranges(table)
    _refuse_overlaps(ranges)
    there = _there(ranges, np.array(rows.takes, dtype=bool), root)
    chosen = [i for i in np.flatnonzero(there).tolist() if rows.takes[i]]
    if not chosen:
        return None
    chosen.sort(
        key=lambda i: (table.rows[i]["slide"], table.rows[i]["shard"], int(ranges.first[i]))
    )
    _refuse_several_stains(table, rows, chosen)
    return _corpus(table, rows, chosen, ranges.first[chosen], there[chosen], root)


@dataclass(frozen=True)
class _Ranges:
    """What every row of the table says. first, count: int64 [rows].

    shard: int [rows], index into shards.
    """

    table: Table
    first: np.ndarray
    count: np.ndarray
    shard: np.ndarray
    shards: list[str]

    def by_shard(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each shard and the indices of its rows."""
        order = np.argsort(self.shard, kind="stable")
        ends = np.searchsorted(self.shard[order], np.arange(len(self.shards)), side="right")
        return zip(self.shards, np.split(order, ends[:-1])[: len(self.shards)], strict=True)

    def said(self, row: int) -> str:
        """A row in words."""
        r = self.table.rows[row]
        return f"slide {r['slide']} has {r['tiles']} tiles of {r['shard']} from {r['first']}"


def _ranges(table: Table) -> _Ranges:
    for where, row in table:
        if not name_of(row["slide"]) or not row["shard"]:
            raise ConfigError(f"{where}: every row needs the names of a slide and of a shard")
    shards, shard = np.unique([row["shard"] for row in table.rows], return_inverse=True)
    return _Ranges(table, _whole(table, "first"), _whole(table, "tiles"), shard, shards.tolist())


def _whole(table: Table, name: str) -> np.ndarray:
    """int64 [rows]: a column of whole numbers from 0."""
    numbers = []
    for i, row in enumerate(table.rows):
        text = row[name]
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise ConfigError(
                f"{table.where(i)}: {name} is {text!r}; `first` and `tiles` must be whole numbers,"
                " 0 or more"
            )
        numbers.append(int(text))
    return np.array(numbers, dtype=np.int64)


def _refuse_overlaps(ranges: _Ranges) -> None:
    """Raises ConfigError when an image is in two rows, used or not.

    Whose is it, and may it be used?
    """
    some = np.flatnonzero(ranges.count)
    order = some[np.lexsort((ranges.first[some], ranges.shard[some]))]
    one, other = order[:-1], order[1:]
    over = (ranges.shard[one] == ranges.shard[other]) & (
        ranges.first[other] < ranges.first[one] + ranges.count[one]
    )
    if over.any():
        i = int(np.flatnonzero(over)[0])
        a, b = sorted((int(one[i]), int(other[i])))
        raise ConfigError(
            f"{ranges.table.where(a)} and line {ranges.table.lines[b]} overlap: "
            f"{ranges.said(a)}, {ranges.said(b)}. Give every image to one row"
        )


def _there(ranges: _Ranges, takes: np.ndarray, root: Path) -> np.ndarray:
    """int64 [rows]: how many tiles of each row there are: 0 where the shard is missing, fewer where it is damaged."""
    there = ranges.count.copy()
    missing, walked = Counter[str](), 0
    for name, of in ranges.by_shard():
        shard = root / name
        if not os.path.isfile(shard):  # also for names that no file system takes
            there[of] = 0
            missing[name] = int(takes[of].sum())
            continue
        images, damage, by_index = _images(shard)
        walked += not by_index
        if walked == _MANY:
            log.warning(
                "%d shards without an index were walked so far: python -m training.data.shards %s"
                " writes them",
                walked,
                root,
            )
        beyond = of[ranges.first[of] + ranges.count[of] > images]
        if len(beyond) and not damage:
            row = int(beyond[0])
            raise ConfigError(
                f"{ranges.table.where(row)}: {ranges.said(row)}, but the shard has {images} images."
                " Images alone are counted, from 0, not side files or folders"
            )
        there[of] = np.clip(images - ranges.first[of], 0, ranges.count[of])
        if damage:
            lost = int((ranges.count[of] - there[of])[takes[of]].sum())
            log.warning(
                "shard %s %s: its first %d tiles are whole, %d others are skipped",
                shard,
                damage,
                images,
                lost,
            )
    _name_missing(missing, root)
    return there


def _images(shard: Path) -> tuple[int, str, bool]:
    """How many images a shard has, its damage or "", and whether an index says so."""
    count = indexed(shard)
    if count is not None:
        return count, "", True
    found = members_of(shard)
    return len(found.names), found.damage, False


def _name_missing(missing: Counter[str], root: Path) -> None:
    for shard, count in sorted(missing.items())[:10]:
        log.warning("skipped: shard %s with %d rows of slides.csv is missing", root / shard, count)
    if len(missing) > 10:
        log.warning("skipped: %d more shards are missing", len(missing) - 10)


def _refuse_several_stains(table: Table, rows: Rows, chosen: list[int]) -> None:
    """Raises ConfigError for a slide whose rows name several stain classes: a slide has one."""
    first: dict[str, int] = {}
    for i in chosen:
        before = first.setdefault(table.rows[i]["slide"], i)
        if rows.stains[i] != rows.stains[before]:
            one, other = (STAIN_CLASSES[rows.stains[j]] for j in (before, i))
            raise ConfigError(
                f"{table.where(before)} and line {table.lines[i]}: slide {table.rows[i]['slide']!r}"
                f" is {one} and {other}. Give slides of two stains two names"
            )


def _corpus(
    table: Table, rows: Rows, chosen: list[int], first: np.ndarray, count: np.ndarray, root: Path
) -> Corpus:
    """chosen: rows sorted by slide. first, count: int64 [chosen]."""
    starts = np.concatenate([[0], np.cumsum(count)])
    slide_names, shard_names = (
        [table.rows[i][name] for i in chosen] for name in ("slide", "shard")
    )
    slides, slide_first, slide_of = np.unique(slide_names, return_index=True, return_inverse=True)
    shards, shard_of = np.unique(shard_names, return_inverse=True)
    organ_names = [rows.organs[i] for i in chosen]
    say_what_differs(slide_names, organ_names, "organs", table.file)
    organs, organ_of = np.unique([organ_names[i] for i in slide_first], return_inverse=True)
    names = slides.tolist()
    lines = zip(slide_names, shard_names, first.tolist(), count.tolist(), strict=True)
    return Corpus(
        tiles=RangeTiles(
            starts,
            slide_of.astype(np.int32),
            shard_of.astype(np.int32),
            first,
            names,
            [root / s for s in shards.tolist()],
            shards.tolist(),
        ),
        slide_names=names,
        slide_starts=np.append(starts[slide_first], starts[-1]),
        slide_stains=np.array([rows.stains[chosen[i]] for i in slide_first], dtype=np.int8),
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest_of(
            [f"{slide} {shard} {first} {count}" for slide, shard, first, count in lines]
        ),
    )
