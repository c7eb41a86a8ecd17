"""A corpus of tiles that are read from their slides, at positions that were chosen before.

`python -m training.archive pack --positions` writes the folder: slides.csv, whose shards are files
of positions (x and y as int32, in level-0 pixels) and whose column `file` says where each slide
lies. Memory grows with the number of slides.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.slides.grid import Grid, read_tile
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.tables import Table, read_table
from training.data import open_files
from training.data.by_slide import (
    Ranged,
    integers,
    ranged_corpus,
    refuse_several_stains,
)
from training.data.manifest import Wanted, read_rows
from training.data.open_files import Place
from training.data.sources import Folder
from training.data.tiles import Corpus, Parts

log = logging.getLogger(__name__)

SUFFIX = ".xy"
_POSITION = struct.Struct("<ii")
_MOST = 32  # open slides in a process
_COLUMNS = ("slide", "shard", "first", "tiles", "mpp_value", "side", "own_mpp", "tile_px", "file")
_NO_CORNERS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class SlideTiles:
    """Positions on slides, in ranges that are sorted by slide.

    Attributes:
        ranges: The ranges; their shards are the files of positions.
        root: The folder of these files.
        grids: Of each range, without corners.
        slides: The file of each slide.
        contents: What identifies the bytes of each slide.
    """

    ranges: Ranged
    root: Path
    grids: list[Grid]
    slides: list[Path]
    contents: list[str]

    def __len__(self) -> int:
        return int(self.ranges.starts[-1])

    def key(self, index: int) -> str:
        """Slide and place in its list of positions: slide/000012.xy#17."""
        r, at = self._at(index)
        found = self.ranges
        return f"{found.slide_names[found.slide[r]]}/{found.shard_names[found.shard[r]]}#{at}"

    def place(self, index: int) -> Place:
        """Where the position of a tile is."""
        r, at = self._at(index)
        file = self.root / self.ranges.shard_names[self.ranges.shard[r]]
        return Place(file, at * _POSITION.size, _POSITION.size)

    def reader(self, index: int) -> Callable[[], np.ndarray]:
        """Reads a tile from its slide."""
        r, _ = self._at(index)

        def read() -> np.ndarray:
            x, y = _POSITION.unpack(open_files.read(self.place(index)))
            with _OPEN.use(self.slides[self.ranges.slide[r]]) as slide:
                return read_tile(slide, self.grids[r], x, y)

        return read

    def parts(self) -> Parts:
        """The ranges; the slide of each stands for its shard, as it is what is opened."""
        return Parts(self.ranges.starts, self.ranges.slide)

    def content(self) -> str:
        """sha256 of the slides' hashes and scales, and of the files of positions."""
        seen = hashlib.sha256()
        for name in self.ranges.shard_names:
            with (self.root / name).open("rb") as stream:
                seen.update(hashlib.file_digest(stream, hashlib.sha256).digest())
        for r, slide in enumerate(self.ranges.slide.tolist()):
            grid = self.grids[r]
            seen.update(f"{self.contents[slide]} {grid.side} {grid.tile_px}\n".encode())
        return seen.hexdigest()

    def _at(self, index: int) -> tuple[int, int]:
        found = self.ranges
        r = int(np.searchsorted(found.starts, index, side="right")) - 1
        return r, int(found.first[r] + index - found.starts[r])


def is_of_positions(file: Path) -> bool:
    """Whether a slides.csv lists positions on slides, and not tiles in shards."""
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        return f"{SUFFIX}," in stream.read(1 << 16)


def read(file: Path, source: Folder, wanted: Wanted) -> Corpus | None:
    """Read the requested rows of a slides.csv of positions.

    Args:
        file: slides.csv.
        source: Its folder.
        wanted: Which rows.

    Returns:
        The corpus; None when no row is left.

    Raises:
        ConfigError: The table lacks a column or has an unknown value, a file of positions is
            missing or cut short, or a slide has several stain classes.
    """
    table = read_table(file, required=_COLUMNS)
    rows = read_rows(table, wanted)
    first, count = integers(table, "first"), integers(table, "tiles")
    _refuse_missing(table, source.root, first + count)
    used = [
        i
        for i, row in enumerate(table.rows)
        if rows.used[i] and count[i] and row["slide"] not in wanted.but
    ]
    chosen = [i for i in used if Path(table.rows[i]["file"]).exists()]
    if lost := len(used) - len(chosen):
        log.warning("%s: %d rows are left out: their slides do not lie there any more", file, lost)
    if not chosen:
        return None
    chosen.sort(key=lambda i: (table.rows[i]["slide"], table.rows[i]["shard"], int(first[i])))
    refuse_several_stains(table, rows, chosen)

    def tiles(found: Ranged) -> SlideTiles:
        of_slide = {table.rows[i]["slide"]: table.rows[i] for i in chosen}
        grids = [_grid(table, i) for i in chosen]
        files = [Path(of_slide[name]["file"]) for name in found.slide_names]
        contents = [of_slide[name].get("content", "") for name in found.slide_names]
        return SlideTiles(found, source.root, grids, files, contents)

    return ranged_corpus(table, rows, chosen, first[chosen], count[chosen], tiles, source)


def _refuse_missing(table: Table, root: Path, ends: np.ndarray) -> None:
    needed: dict[str, int] = {}
    for row, end in zip(table.rows, ends.tolist(), strict=True):
        needed[row["shard"]] = max(needed.get(row["shard"], 0), end)
    for name, count in sorted(needed.items()):
        size = (root / name).stat().st_size if (root / name).is_file() else -1
        if size < count * _POSITION.size:
            raise ConfigError(
                f"{root / name}: {'missing' if size < 0 else 'cut short'}, and {table.file} names"
                f" {count} positions of it. Make it again: python -m training.archive pack"
            )


def _grid(table: Table, row: int) -> Grid:
    values = table.rows[row]
    try:
        side, own, mpp = (float(values[name]) for name in ("side", "own_mpp", "mpp_value"))
        return Grid(_NO_CORNERS, side, side, int(values["tile_px"]), own, mpp)
    except ValueError:
        raise ConfigError(
            f"{table.where(row)}: side, own_mpp, mpp_value and tile_px must be numbers. Make the"
            " table again: python -m training.archive pack"
        ) from None


@dataclass
class _Entry:
    slide: Slide
    users: int = 0


@dataclass
class OpenSlides:
    """The slides that were read last, shared by the threads of a process.

    Attributes:
        most: How many stay open.
    """

    most: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _entries: OrderedDict[Path, _Entry] = field(default_factory=OrderedDict)

    @contextlib.contextmanager
    def use(self, path: Path) -> Iterator[Slide]:
        """An open slide; it stays open while the block runs.

        Raises:
            SlideError: It cannot be opened.
        """
        with self._lock:
            entry = self._entries.get(path)
            if entry is None:
                entry = self._entries[path] = _Entry(open_slide(path))
            self._entries.move_to_end(path)
            entry.users += 1
        try:
            yield entry.slide
        finally:
            with self._lock:
                entry.users -= 1
                self._close_oldest()

    def forget(self) -> None:
        """In a forked process, whose files share their position with those of the parent."""
        self._lock, self._entries = threading.Lock(), OrderedDict()

    def _close_oldest(self) -> None:
        for path in list(self._entries)[: max(0, len(self._entries) - self.most)]:
            if not self._entries[path].users:
                self._entries.pop(path).slide.close()


_OPEN = OpenSlides(_MOST)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_OPEN.forget)
