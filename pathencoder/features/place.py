"""The positions of tiles, from what a feature file of any tool states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.features.layouts import Place
from pathencoder.features.store import FeatureFile
from pathencoder.files import Mismatch

_CLOSE = 0.01  # share by which two scales may differ that are the same
_ROUNDED = 1.001  # pixels by which corners rounded to pixels may differ from a grid, both ways


def place_of(
    source: Path,
    found: FeatureFile,
    mpp: float | None,
    tile_side: float | None,
    layout: str,
    notes: list[str],
) -> Place:
    """The positions of the tiles of a feature file.

    Args:
        source: The file, for messages.
        found: Its content, with coordinates.
        mpp: Micrometres per level-0 pixel, where the file does not state it.
        tile_side: Side of a tile in level-0 pixels, where the file does not state it.
        layout: That the positions are for.
        notes: Gets what was assumed.

    Returns:
        Side and scales that are not known are NaN.

    Raises:
        Mismatch: The file does not state what the layout needs, contradicts what was given, or has
            no regular grid where the layout needs one.
    """
    facts = found.attributes
    scale = _scale(source, found, mpp, notes)
    coords = np.asarray(found.coords, np.float64).reshape(-1, 2)
    if found.unit == "um":
        coords = coords / scale
    side = _side(facts, scale, tile_side)
    if layout in ("trident", "stamp") and not (scale > 0 and side > 0):
        what, option = (
            ("micrometres per pixel of the slide", "--mpp (mpp)")
            if not scale > 0
            else ("side of a tile in level-0 pixels", "--tile-side (tile_side)")
        )
        raise Mismatch(
            f"{source} does not state the {what}, which the layout {layout} needs: give {option}"
        )
    if layout == "clam" and not side > 0:
        notes.append("the side of a tile is not known, so patch_size is not written")
    tile_px = _whole(facts, "tile_px", "patch_size", "tile_size_px")
    tile_px = tile_px or (round(side) if side > 0 else 0)
    target = side * scale / tile_px if tile_px else math.nan
    stated = facts.get("target_mpp")
    if stated and abs(float(stated) / target - 1) < 1e-6:
        target = float(stated)  # without the error of the division
    overlap = _whole(facts, "overlap_px", "overlap")
    size = (_whole(facts, "level0_width"), _whole(facts, "level0_height"))
    if layout == "trident" and not all(size):
        notes.append("the size of the slide is not known")
    origin = _origin(facts, coords, side * (tile_px - overlap) / max(tile_px, 1))
    place = Place(
        slide=str(facts.get("slide") or facts.get("name") or source.stem),
        coords=np.rint(coords).astype(np.int64),
        mpp=scale,
        target_mpp=target,
        side=side,
        tile_px=tile_px,
        overlap_px=overlap,
        size=(size[0], size[1]) if all(size) else None,
        origin=(0.0, 0.0) if origin is None else origin,
    )
    if layout == "stamp" and not place.is_regular:
        raise Mismatch(
            f"{source}: its tiles lie on no regular grid of {place.stride:g} level-0 pixels, which"
            " the layout stamp needs"
        )
    return place


def _scale(source: Path, found: FeatureFile, given: float | None, notes: list[str]) -> float:
    """Micrometres per level-0 pixel; NaN where nothing states it and nothing needs it."""
    facts = found.attributes
    stated = facts.get("slide_mpp")
    if stated is None and facts.get("level0_magnification"):
        stated = 10 / float(facts["level0_magnification"])
        notes.append(f"{stated:.6g} um per pixel, from level0_magnification")
    if stated is not None and given is not None and abs(given / float(stated) - 1) > _CLOSE:
        raise Mismatch(
            f"{source} states {float(stated):g} um per pixel, and --mpp (mpp) says {given:g}: leave"
            " it out where files state it"
        )
    if stated is None and given is None and found.unit == "um":
        raise Mismatch(
            f"{source} states its coordinates in micrometres and not the slide's micrometres per"
            " pixel: give --mpp (mpp)"
        )
    return float(stated if stated is not None else given if given is not None else math.nan)


def _side(facts: Mapping[str, Any], scale: float, given: float | None) -> float:
    """Side of a tile in level-0 pixels; NaN where nothing states it."""
    for name in ("tile_side_level0", "patch_size_level0"):
        if facts.get(name):
            return float(facts[name])
    if facts.get("tile_size_um"):
        return float(facts["tile_size_um"]) / scale
    if facts.get("patch_size") and facts.get("patch_level") == 0:
        return float(facts["patch_size"])
    if facts.get("patch_size") and facts.get("downsample") is not None:
        return float(facts["patch_size"]) * float(np.max(facts["downsample"]))
    return given if given is not None else math.nan


def _origin(
    facts: Mapping[str, Any], corners: NDArray[np.float64], stride: float
) -> tuple[float, float] | None:
    """Top left corner of the grid; of a file that does not state it, one that fits the corners."""
    stated = facts.get("grid_origin_level0")
    if stated is not None:
        x, y = np.asarray(stated, np.float64)
        return float(x), float(y)
    if not stride > 0 or not len(corners):
        return None
    away = corners - corners[0]
    away -= np.rint(away / stride) * stride
    low, high = away.min(axis=0), away.max(axis=0)
    if (high - low > _ROUNDED).any():
        return None
    x, y = corners[0] + (low + high) / 2
    return float(x), float(y)


def _whole(facts: Mapping[str, Any], *names: str) -> int:
    """The first of these attributes that the file has, as a whole number; 0 where it has none."""
    return next((round(float(facts[name])) for name in names if facts.get(name)), 0)
