"""A regular grid of tiles over tissue: positions at level 0, and reading at a given scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.errors import ConfigError, SlideError
from pathencoder.slides.reader import RGB, Slide, best_level
from pathencoder.slides.tissue import PEN, TissueMask

_FILTERS = {  # each with its support in pixels
    "bilinear": (Image.Resampling.BILINEAR, 1.0),
    "bicubic": (Image.Resampling.BICUBIC, 2.0),
}


@dataclass(frozen=True)
class Grid:
    """Tiles of one size on one slide.

    Attributes:
        coords: Top left corners, x and y in level-0 pixels, row by row: int64 [N, 2].
        side: Side of a tile in level-0 pixels, exact (not a whole number in general).
        stride: Distance between neighbouring corners in level-0 pixels, exact.
        tile_px: Side of a tile in its own pixels.
        mpp: Micrometres per level-0 pixel.
        target_mpp: Micrometres per pixel of the tiles.
        notes: Tiles that were left out, as sentences.
    """

    coords: NDArray[np.int64]
    side: float
    stride: float
    tile_px: int
    mpp: float
    target_mpp: float
    notes: tuple[str, ...] = ()


def plan_grid(
    tissue: TissueMask,
    bounds: tuple[int, int, int, int],
    *,
    mpp: float,
    target_mpp: float,
    tile_px: int,
    overlap_px: int = 0,
    min_tissue: float = 0.25,
    max_pen: float = 0.15,
) -> Grid:
    """The tiles with enough tissue and little pen, on a grid that starts at the bounds' corner.

    The last column and row may reach beyond the edge, which is read as white. Positions are exact
    products, rounded once, so that no error adds up along the slide.

    Args:
        tissue: The tissue of the slide.
        bounds: x, y, width, height of the scanned area in level-0 pixels.
        mpp: Micrometres per level-0 pixel.
        target_mpp: Micrometres per pixel of the tiles.
        tile_px: Side of a tile in its own pixels.
        overlap_px: Overlap of neighbouring tiles in pixels of the tile.
        min_tissue: Share of a tile that must be tissue; a tile without any is never kept.
        max_pen: Share of a tile that may be pen: ink changes the embedding of the whole tile.

    Returns:
        The grid; its notes count the tiles that were left out for pen.

    Raises:
        ConfigError: The overlap leaves no step.
    """
    if not 0 <= overlap_px < tile_px:
        raise ConfigError(
            f"overlap {overlap_px} px: from 0 to {tile_px - 1} for tiles of {tile_px} px"
        )
    scale = target_mpp / mpp
    side, stride = tile_px * scale, (tile_px - overlap_px) * scale
    x0, y0, width, height = bounds
    xs = x0 + np.arange(_steps(width, side, stride), dtype=np.float64) * stride
    ys = y0 + np.arange(_steps(height, side, stride), dtype=np.float64) * stride
    share = tissue.share(xs, ys, side)
    wanted = (share >= min_tissue) & (share > 0)
    clean = tissue.share(xs, ys, side, of=PEN) <= max_pen
    rows, columns = np.nonzero(wanted & clean)
    coords = np.stack([np.rint(xs[columns]), np.rint(ys[rows])], axis=1).astype(np.int64)
    lost = int((wanted & ~clean).sum())
    notes = (f"tiles left out for more than {100 * max_pen:.0f} % pen: {lost:,}",) if lost else ()
    return Grid(coords, side, stride, tile_px, mpp, target_mpp, notes)


def read_tile(slide: Slide, grid: Grid, x: int, y: int, *, interpolation: str = "bicubic") -> RGB:
    """Read one tile at the grid's scale.

    The coarsest level that is fine enough is read, with the filter's margin around the tile, and
    resampled (antialiased), so that a tile equals the same cut of a resampled slide.

    Args:
        slide: An open slide.
        grid: The grid of the tile.
        x: Left edge of the tile in level-0 pixels.
        y: Top edge of the tile in level-0 pixels.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [tile_px, tile_px, 3].

    Raises:
        SlideError: The region cannot be read.
    """
    resampling, support = _FILTERS[interpolation]
    level = best_level(slide.downsamples, grid.side / grid.tile_px)
    side = grid.side / slide.downsamples[level]  # in pixels of the level
    if slide.downsamples[level] == 1.0 and math.isclose(side, grid.tile_px, rel_tol=1e-4):
        return slide.read(x, y, 0, grid.tile_px, grid.tile_px)
    margin = math.ceil(support * max(side / grid.tile_px, 1.0)) + 1
    try:
        region, box = _read_around(slide, level, x, y, side, margin)
    except SlideError:  # the damage may lie in the margin alone
        region, box = _read_around(slide, level, x, y, side, 0)
    return np.asarray(
        Image.fromarray(region).resize((grid.tile_px, grid.tile_px), resampling, box=box)
    )


def _read_around(
    slide: Slide, level: int, x: int, y: int, side: float, margin: int
) -> tuple[RGB, tuple[float, float, float, float]]:
    """A square of `side` level pixels at (x, y) with a margin, and its box in the region."""
    down = slide.downsamples[level]
    left, top = x / down, y / down
    column, row = math.floor(left) - margin, math.floor(top) - margin
    extent = math.ceil(max(left % 1, top % 1) + side - 1e-6) + 2 * margin
    region = slide.read(round(column * down), round(row * down), level, extent, extent)
    right, bottom = (min(place + side, extent) for place in (left - column, top - row))
    return region, (left - column, top - row, right, bottom)


def _steps(length: int, side: float, stride: float) -> int:
    """Tiles needed to cover a length."""
    return max(1, math.ceil((length - side) / stride - 1e-9) + 1)
