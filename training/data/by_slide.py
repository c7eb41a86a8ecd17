"""A corpus from a table with one row per slide (slides.csv), for archives.

Memory grows with the number of slides, not of tiles.

Columns: slide, shard, first, tiles: the tiles of the slide are images first .. first + tiles - 1 of
the shard. Only images are counted, from 0, in tar order: folders, other files, hidden files and
label maps (names that end in .labels or .types) do not count. A slide may have several rows.
Optional columns: patient, stain_class, organ, licence, src, split, use, as in manifest.csv.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.tables import Table, read_table
from training.data.contents import contents_of
from training.data.joint_index import JointIndex, joint_index
from training.data.manifest import (
    STAIN_CLASSES,
    Rows,
    Wanted,
    digest_of,
    normalise_shard_names,
    read_rows,
    warn_of_differences,
)
from training.data.open_files import Place
from training.data.sources import Source
from training.data.tiles import Corpus, Parts, Tiles
from training.data.values import name_of

log = logging.getLogger(__name__)

_COLUMNS = ("slide", "shard", "first", "tiles")


@dataclass(frozen=True)
class RangeTiles:
    """Ranges of images in shards, sorted by slide.

    Attributes:
        starts: int64 [ranges + 1], the first tile of each range, and the number of tiles.
        slide: int [ranges], index into slide_names.
        shard: int [ranges], index into shards.
        first: int64 [ranges], the first image of each range in its shard.
        slide_names: Names of the slides.
        shards: Paths or URLs of the tar files.
        shard_names: The same, as the table names them.
        index: Of all shards.
        numbers: int [shards], the number of each in the index.
    """

    starts: np.ndarray
    slide: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    slide_names: list[str]
    shards: list[str]
    shard_names: list[str]
    index: JointIndex
    numbers: np.ndarray

    def __len__(self) -> int:
        return int(self.starts[-1])

    def key(self, index: int) -> str:
        """Slide, shard and image: slide/shard.tar#17."""
        r, member = self._member(index)
        return f"{self.slide_names[self.slide[r]]}/{self.shard_names[self.shard[r]]}#{member}"

    def place(self, index: int) -> Place:
        """Where the bytes of a tile are.

        Raises:
            ImageError: The shard has fewer images, or its index is damaged.
        """
        r, member = self._member(index)
        shard = self.shard[r]
        return self.index.place(int(self.numbers[shard]), member, self.shards[shard])

    def reader(self, index: int) -> None:
        """None: tiles of shards are encoded."""

    def parts(self) -> Parts:
        """The ranges, and the shard of each."""
        return Parts(self.starts, self.shard)

    def content(self) -> str:
        """sha256 of the shards' names, sizes, ranges and samples of their bytes."""
        return self.index.digest(self.shard_names)

    def _member(self, index: int) -> tuple[int, int]:
        r = int(self.starts.searchsorted(index, side="right")) - 1
        return r, int(self.first[r] + index - self.starts[r])


def read(file: Path, source: Source, wanted: Wanted) -> Corpus | None:
    """Read the requested rows of slides.csv whose images exist.

    Args:
        file: slides.csv.
        source: Where the shards are.
        wanted: Which rows.

    Returns:
        The corpus; None when no row is left.

    Raises:
        ConfigError: The table lacks a column or has an unknown value (see read_rows), two ranges
            overlap, a range ends beyond the images of an undamaged shard, or a slide has several
            stain classes. The message names the rows.
    """
    table = read_table(file, required=_COLUMNS)
    normalise_shard_names(table)
    return _from_table(table, source, wanted)


def _from_table(
    table: Table, source: Source, wanted: Wanted, index: JointIndex | None = None
) -> Corpus | None:
    rows = read_rows(table, wanted)
    if not table.rows:
        return None
    ranges = _ranges(table)
    _refuse_overlaps(ranges)
    index = index or joint_index(source, ranges.shards)
    present = _present(ranges, np.array(rows.used, dtype=bool), source, index)
    chosen = [i for i in np.flatnonzero(present).tolist() if rows.used[i]]
    if not chosen:
        return None
    chosen.sort(
        key=lambda i: (table.rows[i]["slide"], table.rows[i]["shard"], int(ranges.first[i]))
    )
    refuse_several_stains(table, rows, chosen)

    def tiles(found: Ranged) -> RangeTiles:
        return RangeTiles(
            found.starts,
            found.slide,
            found.shard,
            found.first,
            found.slide_names,
            [str(source.place(s)) for s in found.shard_names],
            found.shard_names,
            index,
            np.array([index.numbers[s] for s in found.shard_names]),
        )

    return ranged_corpus(table, rows, chosen, ranges.first[chosen], present[chosen], tiles, source)


def read_tars(source: Source, wanted: Wanted) -> Corpus | None:
    """Read every image of every tar: its folder in the tar is its slide, without one the tar is.

    Args:
        source: Where the shards are.
        wanted: Must ask for all: without a table, nothing is known of the images.

    Returns:
        The corpus; None without any tar.

    Raises:
        ConfigError: A filter was asked for.
    """
    shards = source.shards()
    if not shards:
        return None
    wanted.refuse(source.place(""))
    index = joint_index(source, shards, folders=True)
    rows = []
    for name in index.names:
        first = 0
        for folder, count in index.about.get(name, {}).get("folders", []):
            slide = folder or name.removesuffix(".tar")
            values = (slide, name, str(first), str(count))
            rows.append(dict(zip(_COLUMNS, values, strict=True)))
            first += count
    if not rows:
        return None
    where = source.place("")
    log.info(
        "%s has no table: %d tars are read, each folder in them as a slide", where, len(shards)
    )
    table = Table(Path(where), _COLUMNS, rows, list(range(len(rows))), ",")
    return _from_table(table, source, wanted, index)


@dataclass(frozen=True)
class _Ranges:
    """The ranges of all rows of the table.

    Attributes:
        table: The table.
        first: int64 [rows].
        count: int64 [rows].
        shard: int [rows], index into shards.
        shards: Names of the shards.
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

    def describe(self, row: int) -> str:
        """A row in words, for messages."""
        r = self.table.rows[row]
        return f"slide {r['slide']} has {r['tiles']} tiles of {r['shard']} from {r['first']}"


def _ranges(table: Table) -> _Ranges:
    for where, row in table:
        if not name_of(row["slide"]) or not row["shard"]:
            raise ConfigError(f"{where}: every row needs the names of a slide and of a shard")
    shards, shard = np.unique([row["shard"] for row in table.rows], return_inverse=True)
    return _Ranges(
        table, integers(table, "first"), integers(table, "tiles"), shard, shards.tolist()
    )


def integers(table: Table, name: str) -> np.ndarray:
    """int64 [rows]: a column of integers from 0."""
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
    """Raise ConfigError when an image is in two rows, used or not: which row holds is unclear."""
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
            f"{ranges.describe(a)}, {ranges.describe(b)}. Give every image to one row"
        )


def _present(ranges: _Ranges, used: np.ndarray, source: Source, index: JointIndex) -> np.ndarray:
    """int64 [rows]: tiles of each row that exist.

    0 where the shard is missing, fewer than the row states where it is damaged.
    """
    present = ranges.count.copy()
    missing = Counter[str]()
    for name, of in ranges.by_shard():
        if name not in index.numbers:
            present[of] = 0
            missing[str(source.place(name))] = int(used[of].sum())
            continue
        images, damage = index.images(name), index.damage(name)
        beyond = of[ranges.first[of] + ranges.count[of] > images]
        if len(beyond) and not damage:
            row = int(beyond[0])
            raise ConfigError(
                f"{ranges.table.where(row)}: {ranges.describe(row)}, but the shard has {images}"
                " images. Only images are counted, from 0, not other files or folders"
            )
        present[of] = np.clip(images - ranges.first[of], 0, ranges.count[of])
        if damage:
            lost = int((ranges.count[of] - present[of])[used[of]].sum())
            log.warning(
                "shard %s %s: its first %d tiles are whole, %d others are skipped",
                source.place(name),
                damage,
                images,
                lost,
            )
    _log_missing(missing)
    return present


def _log_missing(missing: Counter[str]) -> None:
    for shard, count in sorted(missing.items())[:10]:
        log.warning("skipped: shard %s with %d rows of slides.csv is missing", shard, count)
    if len(missing) > 10:
        log.warning("skipped: %d more shards are missing", len(missing) - 10)


def refuse_several_stains(table: Table, rows: Rows, chosen: list[int]) -> None:
    """Raise ConfigError for a slide whose rows name several stain classes."""
    first: dict[str, int] = {}
    for i in chosen:
        before = first.setdefault(table.rows[i]["slide"], i)
        if rows.stains[i] != rows.stains[before]:
            one, other = (STAIN_CLASSES[rows.stains[j]] for j in (before, i))
            raise ConfigError(
                f"{table.where(before)} and line {table.lines[i]}: slide {table.rows[i]['slide']!r}"
                f" is {one} and {other}. A slide has one stain class: use two names"
            )


@dataclass(frozen=True)
class Ranged:
    """Ranges of tiles, sorted by slide; the fields are those of RangeTiles."""

    starts: np.ndarray
    slide: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    slide_names: list[str]
    shard_names: list[str]


def ranged_corpus(
    table: Table,
    rows: Rows,
    chosen: list[int],
    first: np.ndarray,
    count: np.ndarray,
    tiles_of: Callable[[Ranged], Tiles],
    source: Source,
) -> Corpus:
    """The corpus of the rows `chosen`, sorted by slide; first and count are int64 [chosen]."""
    starts = np.concatenate([[0], np.cumsum(count)])
    slide_names, shard_names = (
        [table.rows[i][name] for i in chosen] for name in ("slide", "shard")
    )
    slides, slide_first, slide_of = np.unique(slide_names, return_index=True, return_inverse=True)
    shards, shard_of = np.unique(shard_names, return_inverse=True)
    organ_names = [rows.organs[i] for i in chosen]
    warn_of_differences(slide_names, organ_names, "organs", table.file)
    organs, organ_of = np.unique([organ_names[i] for i in slide_first], return_inverse=True)
    names = slides.tolist()
    contents = contents_of(
        slide_names,
        [rows.licences[i] for i in chosen],
        [STAIN_CLASSES[rows.stains[i]] for i in chosen],
        [rows.mpp[i] for i in chosen],
        count,
    )
    lines = zip(slide_names, shard_names, first.tolist(), count.tolist(), strict=True)
    return Corpus(
        tiles=tiles_of(
            Ranged(
                starts,
                slide_of.astype(np.int32),
                shard_of.astype(np.int32),
                first,
                names,
                shards.tolist(),
            )
        ),
        slide_names=names,
        slide_starts=np.append(starts[slide_first], starts[-1]),
        slide_stains=np.array([rows.stains[chosen[i]] for i in slide_first], dtype=np.int8),
        run_mpp=np.array([rows.mpp[i] for i in chosen], dtype=np.float32),
        run_starts=starts[:-1],
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest_of(
            [f"{slide} {shard} {first} {count}" for slide, shard, first, count in lines]
        ),
        contents=contents,
        source=source,
    )
