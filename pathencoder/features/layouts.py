"""The three ways in which slide features lie on disk, each as its tool writes and reads it.

trident  `features` (N, D) and `coords` int64, level-0 pixels, with TRIDENT's attributes on both
clam     `features` float32 and `coords` int32 in h5_files/, and the same rows as one tensor in
pt_files/ stamp    `feats` float16 and `coords` float32 in micrometres, with STAMP's attributes at
the root

`stamp_version` is left out on purpose: STAMP refuses files newer than itself and takes files
without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS = ("trident", "clam", "stamp")


@dataclass(frozen=True)
class Place:
    """Where a slide's tiles lie, as every layout needs it.

    Attributes:
        slide: Name of the slide.
        coords: int64 [N, 2], level-0 pixels: the exact corners, rounded.
        mpp: Micrometres per level-0 pixel.
        target_mpp: Micrometres per pixel of the tiles.
        side: Of a tile in level-0 pixels, exact.
        tile_px: Side of a tile as the encoder sees it.
        overlap_px: Of neighbouring tiles, in pixels of the tile.
        size: Of the slide, width and height in level-0 pixels.
        origin: Corner of the grid in level-0 pixels.
    """

    slide: str
    coords: NDArray[np.int64]
    mpp: float
    target_mpp: float
    side: float
    tile_px: int
    overlap_px: int
    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @property
    def stride(self) -> float:
        """Level-0 pixels from tile to tile, exact."""
        return self.side * (self.tile_px - self.overlap_px) / self.tile_px

    def exact(self) -> NDArray[np.float64]:
        """The corners before they were rounded, level-0 pixels [N, 2]."""
        return exact_corners(self.coords, np.asarray(self.origin), self.stride)


def exact_corners(near: NDArray[Any], origin: NDArray[Any], stride: float) -> NDArray[np.float64]:
    """The corners of a grid that are nearest to some places, float64 [N, 2] level-0 pixels."""
    steps: NDArray[np.float64] = np.rint((near - origin) / stride)
    return origin + steps * stride


def feature_name(layout: str) -> str:
    """The dataset that holds the rows."""
    return "feats" if layout == "stamp" else "features"


def feature_dtype(layout: str) -> str:
    """The rows' type on disk."""
    return "<f2" if layout == "stamp" else "<f4"


def path_of(folder: Path, name: str, layout: str) -> Path:
    """The HDF5 file of one slide in an output folder."""
    return (folder / "h5_files" if layout == "clam" else folder) / f"{name}.h5"


def tensor_path(h5: Path) -> Path:
    """CLAM's .pt file that belongs to its .h5 file."""
    return h5.parent.parent / "pt_files" / f"{h5.stem}.pt"


def coords_on_disk(layout: str, place: Place) -> NDArray[Any]:
    """Coordinates in the layout's own unit and type.

    STAMP takes the smallest step between two tiles for the step of the grid, so it gets the corners
    as they were before they were rounded to pixels: rounded ones put most tiles of a large slide
    into a wrong cell of its heatmaps.
    """
    if layout == "stamp":
        return (place.exact() * place.mpp).astype(np.float32)
    return place.coords.astype(np.int32 if layout == "clam" else np.int64)


def attributes(
    layout: str, place: Place, encoder: str, folder: str
) -> dict[str, Mapping[str, Any]]:
    """The attributes that the layout's tool writes, by dataset; "/" is the root."""
    if layout == "trident":
        return {
            "features": {"name": place.slide, "savetodir": folder, "encoder": encoder},
            "coords": _trident_coords(place, folder),
        }
    if layout == "stamp":
        side_um = place.tile_px * place.target_mpp
        root = {
            "extractor": encoder,
            "unit": "um",
            "tile_size_um": side_um,
            "tile_size_px": place.tile_px,
            "feat_type": "tile",
        }
        grid = {
            "grid_origin_level0": np.array(place.origin, np.int64),
            "grid_stride_level0": place.stride,
        }
        return {"/": {**root, "code_hash": "none", **grid}}
    # what CLAM's reader of coordinates asks for
    return {"coords": {"patch_level": 0, "patch_size": round(place.side)}}


def _trident_coords(place: Place, folder: str) -> dict[str, Any]:
    return {
        "patch_size": place.tile_px,
        "patch_size_level0": round(place.side),
        "level0_magnification": _magnification(place.mpp),
        "target_magnification": _magnification(place.target_mpp),
        "overlap": place.overlap_px,
        "name": place.slide,
        "savetodir": folder,
        "level0_width": place.size[0],
        "level0_height": place.size[1],
    }


def _magnification(mpp: float) -> float | int:
    """TRIDENT's unit: 10 / mpp.

    Not rounded to 20 or 40, since its patcher takes the ratio of two of them as the scale.
    """
    value = 10 / mpp
    return round(value) if abs(value - round(value)) < 1e-6 else value
