"""The tiles of one slide, by the readers, tissue and quality measures of `pathencoder encode`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import SlideError
from pathencoder.features.identity import slide_stat
from pathencoder.slides.grid import Grid, plan_grid, read_tile
from pathencoder.slides.quality import Quality, columns_of, quality_of
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.slides.tissue import TissueMask, find_tissue, refuse_dark
from training.archive.pack.choose import choose
from training.archive.pack.hashes import TILE_BITS, as_text, hash_of, near
from training.archive.pack.settings import Settings, encoded, in_nm
from training.archive.row import Row

_FINER = 1.25  # a slide may be so much coarser than the tiles that are read of it
_BLOCK = 64  # tiles in memory at a time
_HASH_SIDE = 16  # of the hash of a slide: 256 bits

At = tuple[int, int]


@dataclass(frozen=True)
class Scale:
    """The chosen tiles of a slide at one scale.

    Attributes:
        grid: With the chosen tiles alone.
        cluster: Of each tile, int8 [N].
        planned: Tiles of the whole grid.
    """

    grid: Grid
    cluster: NDArray[np.int8]
    planned: int


@dataclass
class Opened:
    """A slide whose tissue was found and whose tiles were chosen. `close` it.

    Attributes:
        slide: The open slide.
        tissue: Its tissue.
        scales: Its tiles at each scale.
        picture: The hash of its small picture.
        notes: What was found, assumed or left out, as sentences.
    """

    slide: Slide
    tissue: TissueMask
    scales: list[Scale]
    picture: str
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Close the slide."""
        self.slide.close()


@dataclass(frozen=True)
class Tile:
    """A tile that was read and compressed, or why it could not be."""

    at: At
    data: bytes
    quality: Quality
    hashed: int
    error: str = ""


@dataclass
class Written:
    """The tiles of a slide at one scale, as they were written.

    Attributes:
        mpp: Micrometres per pixel of the tiles.
        side: Of a tile, in level-0 pixels.
        columns: One value a tile.
        failed: Tiles that cannot be read.
        first_error: Of these.
        alike: Tiles that nearly equal another one of the slide.
    """

    mpp: float
    side: float
    columns: dict[str, list[float | int]]
    failed: int = 0
    first_error: str = ""
    alike: int = 0


def open_tiles(path: Path, row: Row, settings: Settings) -> Opened:
    """Open a slide, find its tissue, choose its tiles.

    Args:
        path: The slide.
        row: Its row in the manifest, whose scale counts.
        settings: How it is packed.

    Raises:
        SlideError: It cannot be read, its background is dark, or all scales are finer than its own.
        MissingMpp: Neither the manifest nor the slide states its scale.
    """
    slide = open_slide(path)
    try:
        found = slide.mpp(row.mpp_value)
        tissue = find_tissue(slide, found.value)
        refuse_dark(tissue, path)
        opened = Opened(slide, tissue, [], "", [*slide.notes, *found.notes, *tissue.notes])
        if tissue.picture is not None:
            opened.picture = as_text(hash_of(tissue.picture, _HASH_SIDE))
        for mpp in settings.mpp:
            if found.value > mpp * _FINER:
                opened.notes.append(
                    f"no tiles of {mpp:g} um per pixel: the slide has {found.value:g}"
                )
                continue
            opened.scales.append(_scale(opened, found.value, mpp, settings, row.slide))
        if not opened.scales:
            raise SlideError(f"{path}: {opened.notes[-1]}. Ask for a coarser --mpp, too")
    except BaseException:
        slide.close()
        raise
    return opened


def _scale(opened: Opened, own: float, mpp: float, settings: Settings, name: str) -> Scale:
    grid = plan_grid(
        opened.tissue,
        opened.slide.bounds,
        mpp=own,
        target_mpp=mpp,
        tile_px=settings.tile_px,
        min_tissue=settings.min_tissue,
    )
    opened.notes += [note for note in grid.notes if note not in opened.notes]
    chosen, cluster = choose(
        opened.tissue, grid.coords, grid.side, settings.tiles, f"{name} {in_nm(mpp)}"
    )
    kept = Grid(
        grid.coords[chosen], grid.side, grid.stride, grid.tile_px, grid.mpp, grid.target_mpp
    )
    return Scale(kept, cluster, len(grid.coords))


def write_tiles(
    opened: Opened,
    scale: Scale,
    settings: Settings,
    pool: Executor | None,
    write: Callable[[At, bytes], None],
    pause: Callable[[], None] = lambda: None,
) -> Written:
    """Read the tiles of a scale in order, and hand each to `write`.

    Args:
        opened: The slide.
        scale: Its tiles.
        settings: The codec.
        pool: Threads that read; None: this one.
        write: Called with the corner and the bytes of each tile.
        pause: Called between blocks of tiles; may raise.

    Returns:
        What is known of the tiles that were written.

    Raises:
        SlideError: No tile can be read.
    """
    grid = scale.grid
    done: list[tuple[int, Tile]] = []
    made = Written(grid.target_mpp, grid.side, {})
    for number, tile in enumerate(_read(opened, grid, settings, pool, pause)):
        if tile.error:
            made.failed += 1
            made.first_error = made.first_error or tile.error
            continue
        write(tile.at, tile.data)
        done.append((number, Tile(tile.at, b"", tile.quality, tile.hashed)))
    if made.failed and not done:
        raise SlideError(f"{opened.slide.path}: no tile can be read, the first: {made.first_error}")
    made.columns = dict(_columns(opened, scale, done))
    if settings.pixels and len(done) > 1:
        hashes = np.array([[tile.hashed] for _, tile in done], np.uint64)
        made.alike = len({pair[1] for pair in near(hashes, TILE_BITS)})
    return made


def _read(
    opened: Opened,
    grid: Grid,
    settings: Settings,
    pool: Executor | None,
    pause: Callable[[], None],
) -> Iterator[Tile]:
    corners: list[At] = [(x, y) for x, y in grid.coords.tolist()]

    def one(at: At) -> Tile:
        if not settings.pixels:
            return Tile(at, b"", Quality(float("nan"), float("nan")), 0)
        try:
            tile = read_tile(opened.slide, grid, *at)
        except SlideError as error:
            return Tile(at, b"", Quality(0, 0), 0, str(error))
        hashed = int(hash_of(tile)[0])
        return Tile(at, encoded(tile, settings), quality_of(tile, grid.target_mpp), hashed)

    for start in range(0, len(corners), _BLOCK):
        pause()
        yield from (pool.map if pool else map)(one, corners[start : start + _BLOCK])


def _columns(
    opened: Opened, scale: Scale, done: Sequence[tuple[int, Tile]]
) -> Mapping[str, list[float | int]]:
    """Position, cluster, quality and hash of the tiles that were written."""
    corners = np.array([tile.at for _, tile in done], np.int64).reshape(-1, 2)
    found = np.array([tile.quality for _, tile in done], np.float32).reshape(-1, 2)
    places = np.array([number for number, _ in done], np.int64)
    quality = columns_of(found, corners, scale.grid.side, tissue=opened.tissue, pen=opened.tissue)
    return {
        "x": corners[:, 0].tolist(),
        "y": corners[:, 1].tolist(),
        "cluster": scale.cluster[places].tolist(),
        **{name: [_rounded(v) for v in values.tolist()] for name, values in quality.items()},
        "hash": [tile.hashed for _, tile in done],
    }


def _rounded(value: float) -> float:
    """Six digits: JSON and Parquet then hold the same number."""
    return float(f"{value:.6g}")


def stat_of(path: Path) -> list[int]:
    """Size and time of a slide's files, by which a change is noticed."""
    try:
        size, modified, _ = slide_stat(path)
    except SlideError:
        return [-1, 0]
    return [size, modified]
