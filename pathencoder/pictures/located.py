"""The tiles of a slide with their features and places, from a feature file of any layout."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.features.store import FeatureFile, read_features
from pathencoder.pictures.components import Rows


@dataclass(frozen=True)
class Tiles:
    """The tiles of one slide.

    Attributes:
        file: The feature file.
        slide: File name of the slide; the name of the feature file where that is not recorded.
        rows: float32 [N, D].
        corners: Top left corners, x and y in level-0 pixels: float64 [N, 2].
        side: Side of a tile in level-0 pixels.
        step: Distance between neighbouring tiles in level-0 pixels; the side where it is unknown.
        mpp: Micrometres per level-0 pixel; None where it is unknown.
        size: Width and height of the slide in level-0 pixels; None where it is unknown.
        attributes: Of the feature file.
        notes: What was assumed, as sentences.
        unit: "px", or "um" where positions, side and step are in micrometres.
        finite: Which rows of the file these are, bool: rows that are not finite are left out.
            None: all of them.
    """

    file: Path
    slide: str
    rows: Rows
    corners: NDArray[np.float64]
    side: float
    step: float
    mpp: float | None
    size: tuple[int, int] | None
    attributes: dict[str, Any]
    notes: tuple[str, ...] = ()
    unit: str = "px"
    finite: NDArray[np.bool_] | None = None

    def in_pixels(self, mpp: float) -> Tiles:
        """The same tiles with micrometres changed to level-0 pixels of `mpp` micrometres."""
        if self.unit == "px":
            return dataclasses.replace(self, mpp=self.mpp or mpp)
        return dataclasses.replace(
            self,
            corners=self.corners / mpp,
            side=self.side / mpp,
            step=self.step / mpp,
            mpp=mpp,
            unit="px",
        )

    def at(self, x: float, y: float) -> int:
        """The tile at a point in level-0 pixels; of several, the one whose centre is nearest.

        Raises:
            ConfigError: No tile is there.
        """
        away = np.abs(self.corners + self.side / 2 - (x, y)).max(axis=1)
        if not len(away):
            raise ConfigError(f"{self.file} holds no tiles")
        nearest = int(away.argmin())
        if away[nearest] > self.side / 2 + 0.5:
            there = ",".join(f"{v:.0f}" for v in self.corners[nearest])
            raise ConfigError(
                f"no tile of {self.file} is at {x:g},{y:g} (level-0 pixels); the nearest begins at"
                f" {there}"
            )
        return nearest


def read_tiles(file: Path) -> Tiles:
    """Read the tiles of a slide's feature file: of this package, TRIDENT, CLAM or STAMP.

    Raises:
        ConfigError: It holds images without places, or does not say how large a tile is.
        StoreError: It cannot be read.
    """
    found = read_features(file)
    if found.coords is None:
        raise ConfigError(
            f"{file} holds images of a folder, which have no place on a slide: give a file of a"
            " slide"
        )
    rows, notes = _usable(found)
    corners = np.asarray(found.coords, np.float64).reshape(-1, 2)
    side, said = _side(found, file)
    step = side * _step_share(found.attributes)
    whole = np.asarray(np.isfinite(rows).all(axis=1))
    if not whole.all():
        notes.append(f"tiles left out because their features are not numbers: {(~whole).sum():,}")
    mpp = _mpp(found)
    return Tiles(
        file,
        str(found.attributes.get("slide") or found.attributes.get("name") or file.stem),
        rows[whole],
        corners[whole],
        side,
        step,
        mpp,
        _size(found.attributes),
        found.attributes,
        (*notes, *said),
        unit=found.unit,
        finite=whole,
    )


def _usable(found: FeatureFile) -> tuple[Rows, list[str]]:
    """One row a tile; maps are averaged."""
    if found.rows.ndim <= 2:
        return found.rows, []
    rows = found.rows.reshape(*found.rows.shape[:2], -1).mean(axis=2, dtype=np.float32)
    return rows, ["dense features: each tile's map is averaged"]


def _side(found: FeatureFile, file: Path) -> tuple[float, list[str]]:
    """Side of a tile in the unit of the coordinates, and a note where it had to be inferred."""
    names = ("tile_size_um",) if found.unit == "um" else ("tile_side_level0", "patch_size_level0")
    for name in names:
        if found.attributes.get(name):
            return float(found.attributes[name]), []
    size, level = found.attributes.get("patch_size"), found.attributes.get("patch_level")
    if size and level == 0:
        return float(size), []
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in np.asarray(found.coords).T])
    if not len(steps):
        if not len(found.rows):
            return 1.0, []
        raise ConfigError(f"{file} does not say how large its tiles are in level-0 pixels")
    side = float(np.median(steps))
    return side, [f"the file does not state the tiles' side: {side:g} px is the usual step"]


def _step_share(attributes: dict[str, Any]) -> float:
    """The step between tiles as a share of their side."""
    for overlap, size in (("overlap_px", "tile_px"), ("overlap", "patch_size")):
        if attributes.get(size) and overlap in attributes:
            return max(1 - float(attributes[overlap]) / float(attributes[size]), 1e-3)
    return 1.0


def _mpp(found: FeatureFile) -> float | None:
    """Micrometres per level-0 pixel, where the file states it."""
    if found.unit == "um":
        return None
    if found.attributes.get("slide_mpp"):
        return float(found.attributes["slide_mpp"])
    magnification = found.attributes.get("level0_magnification")
    return 10 / float(magnification) if magnification else None


def _size(attributes: dict[str, Any]) -> tuple[int, int] | None:
    width, height = attributes.get("level0_width"), attributes.get("level0_height")
    return (int(width), int(height)) if width and height else None
