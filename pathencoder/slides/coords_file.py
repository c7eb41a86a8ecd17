"""Coordinates of tiles from another run or another tool: TRIDENT's, CLAM's and our own files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import SlideError
from pathencoder.slides.grid import Grid
from pathencoder.slides.overview import LEAST, TARGET_MPP, thumbnail
from pathencoder.slides.reader import Slide
from pathencoder.slides.tissue import TissueMask
from pathencoder.walk import printable

_EXACT = "tile_side_level0"  # attribute of the root in files of this package


@dataclass(frozen=True)
class GivenCoords:
    """Tiles whose places are given.

    Attributes:
        path: The file.
        sha256: Of the coordinates and the side.
        coords: Top left corners, x and y in level-0 pixels: int64 [N, 2].
        side: Side of a tile in level-0 pixels.
        overlap: Overlap of neighbouring tiles as a share of the side.
        made_by: The tool whose attributes the file has.
        twice: How many tiles stood in the file a second time; each is embedded once.
    """

    path: Path
    sha256: str
    coords: NDArray[np.int64]
    side: float
    overlap: float
    made_by: str
    twice: int = 0

    @property
    def note(self) -> str:
        """What was read, as a sentence."""
        twice = f"; {self.twice:,} stand there twice and are embedded once" if self.twice else ""
        return (
            f"{len(self.coords):,} tiles at the coordinates of {printable(self.path.name)}"
            f" ({self.made_by}), {self.side:g} level-0 px wide; no tissue is looked for{twice}"
        )


def read_coords(file: Path) -> GivenCoords:
    """Read the coordinates of tiles.

    Args:
        file: An HDF5 file with `coords` in level-0 pixels: of TRIDENT (`patches/NAME_patches.h5`),
            of CLAM (`patches/NAME.h5`), or a feature file of the layouts trident and clam.

    Returns:
        The places of the tiles, and their side: TRIDENT's patch_size_level0, or CLAM's patch_size
        times the downsample of its patch_level. These are whole numbers; files of this package
        state the exact side too, which is taken.

    Raises:
        SlideError: The file is no such file, or does not say how wide a tile is.
    """
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            dataset = opened["coords"]
            values = np.asarray(dataset)
            attributes, exact = dict(dataset.attrs), opened.attrs.get(_EXACT)
    except (OSError, KeyError) as error:
        raise SlideError(
            f"{printable(file)}: no HDF5 file with `coords` ({error}). Give a file of TRIDENT's or"
            " CLAM's patches, or a feature file"
        ) from error
    if values.ndim != 2 or values.shape[1] != 2 or not np.issubdtype(values.dtype, np.integer):
        raise SlideError(
            f"{printable(file)}: `coords` is {values.dtype} {list(values.shape)}, not whole level-0"
            " pixels [N, 2]. STAMP's micrometres cannot be used"
        )
    _, first = np.unique(values, axis=0, return_index=True)
    coords = values[np.sort(first)].astype(np.int64)
    side, made_by = _side(attributes, file)
    if exact is not None and round(float(exact)) == side:
        side = float(exact)
    said = f"{side:g}" if side.is_integer() else repr(side)
    digest = hashlib.sha256(coords.astype("<i8").tobytes() + said.encode())
    overlap = float(attributes.get("overlap", 0)) / float(attributes.get("patch_size", 1) or 1)
    twice = len(values) - len(coords)
    return GivenCoords(file, digest.hexdigest(), coords, side, overlap, made_by, twice)


def given_grid(
    given: GivenCoords, bounds: tuple[int, int, int, int], *, mpp: float, tile_px: int
) -> Grid:
    """The tiles of given coordinates, each resampled whole to the encoder's input.

    Tiles may reach beyond the edges, as those of `plan_grid` and of CLAM do.

    Args:
        given: Places and side of the tiles.
        bounds: x, y, width, height of the scanned area in level-0 pixels.
        mpp: Micrometres per level-0 pixel.
        tile_px: Side of a tile in its own pixels.

    Raises:
        SlideError: A tile has no part in the scanned area.
    """
    low, size = np.array(bounds[:2]), np.array(bounds[2:])
    ends = given.coords + given.side
    outside = int(((ends < low) | (given.coords > low + size)).any(1).sum())
    if outside:
        raise SlideError(
            f"{printable(given.path)}: {outside:,} of its {len(given.coords):,} tiles lie outside"
            " the slide. The coordinates are of another slide, or not in level-0 pixels"
        )
    return Grid(
        given.coords,
        given.side,
        given.side * (1 - given.overlap),
        tile_px,
        mpp,
        given.side / tile_px * mpp,
    )


def covered(slide: Slide, grid: Grid) -> TissueMask:
    """The area of given tiles in the place of tissue, with a picture of the slide.

    Args:
        slide: An open slide.
        grid: Its tiles.

    Returns:
        A mask at about 8 um a pixel, without notes.

    Raises:
        SlideError: No part of the slide can be read.
    """
    fine = thumbnail(slide, grid.mpp, least=LEAST)
    small = fine.reduced(TARGET_MPP / grid.mpp)
    mask = np.zeros(small.unread.shape, np.bool_)
    corners = (grid.coords - slide.bounds[:2]) / small.scale
    sides = grid.side / np.asarray(small.scale)
    for (left, top), (right, bottom) in zip(
        np.rint(corners).astype(int).tolist(),
        np.rint(corners + sides).astype(int).tolist(),
        strict=True,
    ):
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    return TissueMask(mask, (slide.bounds[0], slide.bounds[1]), small.scale, picture=fine.image)


def _side(attributes: Mapping[str, Any], file: Path) -> tuple[float, str]:
    """The side of a tile in level-0 pixels, and the tool that wrote it."""
    try:
        if "patch_size_level0" in attributes:
            side, made_by = float(attributes["patch_size_level0"]), "TRIDENT's attributes"
        else:
            level = int(attributes["patch_level"])
            down = float(np.ravel(attributes.get("downsample", 1.0))[0]) if level else 1.0
            if level and "downsample" not in attributes:
                raise KeyError("downsample")
            side, made_by = float(attributes["patch_size"]) * down, "CLAM's attributes"
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise SlideError(
            f"{printable(file)}: `coords` has no {error} attribute: how wide a tile is cannot be"
            " known. Needed: patch_size_level0 (TRIDENT), or patch_size and patch_level (CLAM)"
        ) from error
    if not side >= 1:
        raise SlideError(f"{printable(file)}: tiles of {side:g} level-0 pixels")
    return side, made_by
