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
            ConfigError: No tile is there, or the places are in micrometres.
        """
        if self.unit != "px":
            raise ConfigError(
                f"{self.file} holds places in micrometres, not in level-0 pixels, and the slide is"
                " not at hand: give it with --slide (slide=), which says how large a pixel is"
            )
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
    corners = _corners(found, file)
    numbers = _Numbers(found.attributes, file)
    side, said = _side(found, corners, numbers)
    step = side * _step_share(numbers)
    whole = np.asarray(np.isfinite(rows).all(axis=1))
    if not whole.all():
        notes.append(f"tiles left out because their features are not numbers: {(~whole).sum():,}")
    mpp = _mpp(found, numbers)
    return Tiles(
        file,
        str(found.attributes.get("slide") or found.attributes.get("name") or file.stem),
        rows[whole],
        corners[whole],
        side,
        step,
        mpp,
        _size(numbers),
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


def _corners(found: FeatureFile, file: Path) -> NDArray[np.float64]:
    """The places of the tiles, one for each row."""
    corners = np.asarray(found.coords, np.float64)
    if not corners.size and not len(found.rows):
        return corners.reshape(0, 2)
    if corners.shape != (len(found.rows), 2):
        raise ConfigError(
            f"{file}: its coords have the shape {list(corners.shape)} for {len(found.rows):,} rows:"
            " x and y of each tile are needed, [N, 2]. Write them again"
        )
    if not np.isfinite(corners).all():
        raise ConfigError(
            f"{file}: {(~np.isfinite(corners).all(axis=1)).sum():,} of its coords are not numbers:"
            " each tile needs its x and y. Write them again"
        )
    return corners


@dataclass(frozen=True)
class _Numbers:
    """The attributes of a feature file that are numbers.

    Attributes:
        attributes: All of them.
        file: That holds them.
    """

    attributes: dict[str, Any]
    file: Path

    def of(self, name: str) -> float | None:
        """One of them; None where it is not stated, or zero.

        Raises:
            ConfigError: It is something else than a number, or negative.
        """
        value = self.attributes.get(name)
        if value is None or (isinstance(value, str) and not value):
            return None
        try:
            number = float(np.asarray(value).item())
        except (TypeError, ValueError):
            number = -1.0
        if not (number >= 0 and np.isfinite(number)):
            raise ConfigError(
                f"{self.file}: its attribute {name} is {value!r}: a number is needed. Correct it,"
                " or delete it where it is not known"
            )
        return number or None


def _side(
    found: FeatureFile, corners: NDArray[np.float64], numbers: _Numbers
) -> tuple[float, list[str]]:
    """Side of a tile in the unit of the coordinates, and a note where it had to be inferred."""
    names = ("tile_size_um",) if found.unit == "um" else ("tile_side_level0", "patch_size_level0")
    for name in names:
        if stated := numbers.of(name):
            return stated, []
    size = numbers.of("patch_size")
    if size and found.attributes.get("patch_level") == 0:
        return size, []
    steps = np.concatenate([np.diff(np.unique(axis)) for axis in corners.T])
    if not len(steps):
        if not len(found.rows):
            return 1.0, []
        raise ConfigError(f"{numbers.file} does not say how large its tiles are in level-0 pixels")
    side = float(np.median(steps))
    return side, [
        f"the file does not state the tiles' side: {side:g} {found.unit} is the usual step"
    ]


def _step_share(numbers: _Numbers) -> float:
    """The step between tiles as a share of their side."""
    for overlap, size in (("overlap_px", "tile_px"), ("overlap", "patch_size")):
        if (side := numbers.of(size)) and overlap in numbers.attributes:
            return max(1 - (numbers.of(overlap) or 0.0) / side, 1e-3)
    return 1.0


def _mpp(found: FeatureFile, numbers: _Numbers) -> float | None:
    """Micrometres per level-0 pixel, where the file states it."""
    if found.unit == "um":
        return None
    if stated := numbers.of("slide_mpp"):
        return stated
    magnification = numbers.of("level0_magnification")
    return 10 / magnification if magnification else None


def _size(numbers: _Numbers) -> tuple[int, int] | None:
    width, height = numbers.of("level0_width"), numbers.of("level0_height")
    return (int(width), int(height)) if width and height else None
