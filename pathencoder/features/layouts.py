"""The layouts of slide features on disk, each as its tool writes and reads it.

- trident: `features` float32 [N, D] and `coords` int64 in level-0 pixels, with TRIDENT's
  attributes on both.
- clam: `features` float32 and `coords` int32 in h5_files/, and the same rows as one tensor in
  pt_files/.
- stamp: `feats` float16 and `coords` float32 in micrometres, with STAMP's attributes at the root.
  `stamp_version` is left out on purpose: STAMP refuses files newer than itself and accepts files
  without one.
- anndata: an .h5ad file, as scanpy reads it (features/annotated.py).
- zarr: the same in a Zarr folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.walk import printable

LAYOUTS = ("trident", "clam", "stamp", "anndata", "zarr")
ANNOTATED = frozenset({"anndata", "zarr"})  # AnnData's form
_SUFFIXES = {"anndata": ".h5ad", "zarr": ".zarr"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """The positions of a slide's tiles, for every layout.

    Attributes:
        slide: Name of the slide.
        coords: Top left corners, x and y in level-0 pixels, rounded: int64 [N, 2].
        mpp: Micrometres per level-0 pixel; NaN: unknown, as the next two.
        target_mpp: Micrometres per pixel of the tiles.
        side: Side of a tile in level-0 pixels, exact.
        tile_px: Side of a tile in its own pixels; 0: unknown.
        overlap_px: Overlap of neighbouring tiles in pixels of the tile.
        size: Width and height of the slide in level-0 pixels; None: unknown.
        origin: Top left corner of the grid in level-0 pixels.
    """

    slide: str
    coords: NDArray[np.int64]
    mpp: float
    target_mpp: float
    side: float
    tile_px: int
    overlap_px: int
    size: tuple[int, int] | None
    origin: tuple[float, float] = (0, 0)

    @property
    def stride(self) -> float:
        """Distance between neighbouring corners in level-0 pixels, exact."""
        return self.side * (self.tile_px - self.overlap_px) / max(self.tile_px, 1)

    def exact(self) -> NDArray[np.float64]:
        """The corners before they were rounded: float64 [N, 2] in level-0 pixels."""
        return exact_corners(self.coords, np.asarray(self.origin), self.stride)

    @property
    def is_regular(self) -> bool:
        """Whether every corner, before it was rounded, lies on the grid."""
        return self.stride > 0 and bool((np.abs(self.exact() - self.coords) <= 0.5 + 1e-3).all())


def exact_corners(near: NDArray[Any], origin: NDArray[Any], stride: float) -> NDArray[np.float64]:
    """The corners of a grid that are nearest to given points.

    Args:
        near: Points, [N, 2] in level-0 pixels.
        origin: Top left corner of the grid, [2].
        stride: Distance between neighbouring corners in level-0 pixels.

    Returns:
        float64 [N, 2] in level-0 pixels.
    """
    steps: NDArray[np.float64] = np.rint((near - origin) / stride)
    return origin + steps * stride


def feature_name(layout: str) -> str:
    """The name of the dataset that holds the rows."""
    return {"stamp": "feats", "anndata": "X", "zarr": "X"}.get(layout, "features")


def feature_dtype(layout: str) -> str:
    """The dtype of the rows on disk."""
    return "<f2" if layout == "stamp" else "<f4"


def suffix_of(layout: str) -> str:
    """The suffix of a layout's files, with its dot."""
    return _SUFFIXES.get(layout, ".h5")


def path_of(folder: Path, name: str, layout: str) -> Path:
    """The feature file of one slide in an output folder; of the layout zarr, a folder."""
    return (folder / "h5_files" if layout == "clam" else folder) / f"{name}{suffix_of(layout)}"


def check_name(file: Path, layout: str) -> None:
    """Refuse a name that the files of a layout do not have.

    Raises:
        ConfigError: It has another suffix, is a folder, or of the layout clam, is not in h5_files.
    """
    suffix, name = suffix_of(layout), printable(file)
    if file.suffix.lower() != suffix or (file.is_dir() and layout != "zarr"):
        raise ConfigError(
            f"out={name!r} is no name of a feature file: end it in {suffix}, for example"
            f" {name}/slide{suffix}"
        )
    if layout == "clam" and file.parent.name != "h5_files":
        raise ConfigError(
            f"out={name!r}: CLAM looks for its files in two folders, h5_files and pt_files: give"
            " out='FOLDER/h5_files/NAME.h5'"
        )


def check_installed(layout: str) -> None:
    """Refuse a layout whose library is not installed.

    Raises:
        MissingExtra: It is not.
    """
    if layout == "zarr":
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise MissingExtra.of("zarr", "The layout zarr") from error


def tensor_path(h5: Path) -> Path:
    """The .pt file that belongs to an .h5 file of the layout clam."""
    return h5.parent.parent / "pt_files" / f"{h5.stem}.pt"


def coords_on_disk(layout: str, place: Place) -> NDArray[Any]:
    """Coordinates in the unit and dtype of a layout, [N, 2].

    STAMP takes the smallest distance between two tiles for the stride of the grid. It gets the
    corners as they were before they were rounded to pixels: rounded corners put most tiles of a
    large slide into a wrong cell of its heatmaps.
    """
    if layout == "stamp":
        return (place.exact() * place.mpp).astype(np.float32)
    return place.coords.astype(np.int32 if layout == "clam" else np.int64)


def attributes(
    layout: str, place: Place, encoder: str, folder: str
) -> dict[str, Mapping[str, Any]]:
    """The attributes that the tool of a layout writes.

    Args:
        layout: One of `LAYOUTS`.
        place: The positions of the tiles.
        encoder: Name of the encoder.
        folder: Folder of the file.

    Returns:
        Attributes by dataset; "/" is the root.
    """
    if layout == "trident":
        return {
            "features": {"name": place.slide, "savetodir": folder, "encoder": encoder},
            "coords": _trident_coords(place, folder),
        }
    if layout == "stamp":
        root = {
            "extractor": encoder,
            "unit": "um",
            "tile_size_um": place.tile_px * place.target_mpp,
            "tile_size_px": place.tile_px,
            "feat_type": "tile",
            "code_hash": "none",
        }
        return {"/": root}
    if layout == "clam" and place.side > 0:  # what CLAM's reader of coordinates needs
        return {"coords": {"patch_level": 0, "patch_size": round(place.side)}}
    return {}


def facts_of(place: Place) -> dict[str, Any]:
    """The attributes of the root from which a `Place` can be restored, in every layout."""
    facts: dict[str, Any] = {
        "slide_mpp": place.mpp,
        "tile_px": place.tile_px,
        "tile_side_level0": place.side,
        **_size(place),
    }
    facts = {k: v for k, v in facts.items() if v > 0}  # what is known
    if place.is_regular:  # not so where coordinates were given
        facts |= {
            "grid_origin_level0": np.array(place.origin, np.float64),
            "grid_stride_level0": place.stride,
        }
    return facts


def _trident_coords(place: Place, folder: str) -> dict[str, Any]:
    return {
        "patch_size": place.tile_px,
        "patch_size_level0": round(place.side),
        "level0_magnification": _magnification(place.mpp),
        "target_magnification": _magnification(place.target_mpp),
        "overlap": place.overlap_px,
        "name": place.slide,
        "savetodir": folder,
        **_size(place),
    }


def _size(place: Place) -> dict[str, int]:
    if place.size is None:
        return {}
    return {"level0_width": place.size[0], "level0_height": place.size[1]}


def _magnification(mpp: float) -> float | int:
    """The magnification as TRIDENT defines it: 10 / mpp.

    It is not rounded to 20 or 40, since TRIDENT's patcher takes the ratio of two magnifications
    as the scale.
    """
    value = 10 / mpp
    return round(value) if abs(value - round(value)) < 1e-6 else value
