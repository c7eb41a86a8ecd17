"""What the readers of several formats share: regions over an edge, and factors of levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
Size = tuple[int, int]  # width and height in pixels


def padded(
    read: Callable[[int, int, int, int], RGB], size: Size, left: int, top: int, wanted: Size
) -> RGB:
    """A region of an image that may reach beyond its edges, where it is white.

    Args:
        read: Reads (left, top, width, height), which lie in the image.
        size: Of the image.
        left: Left edge of the region.
        top: Top edge of the region.
        wanted: Size of the region.

    Returns:
        uint8 [height, width, 3].
    """
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + wanted[0], size[0]), min(top + wanted[1], size[1])
    if (x0, y0, x1, y1) == (left, top, left + wanted[0], top + wanted[1]):
        return read(left, top, *wanted)
    region = np.full((wanted[1], wanted[0], 3), 255, np.uint8)
    if x1 > x0 and y1 > y0:
        inside = read(x0, y0, x1 - x0, y1 - y0)
        region[y0 - top : y1 - top, x0 - left : x1 - left] = inside
    return region


def true_downsample(size: Size, level: Size, said: float) -> float:
    """The factor between level 0 and a level.

    Levels are made by whole factors, and their sizes are truncated to whole pixels. OpenSlide
    divides the sizes, which gives 4.002 for 4 and misplaces a tile by more the farther it lies
    from the corner.

    Args:
        size: Width and height of level 0.
        level: Width and height of the level.
        said: The factor that the reader gives.

    Returns:
        A power of two or another whole number where the sizes fit one, else `said`.
    """
    for whole in (2 ** round(math.log2(said)), round(said)):
        if all(abs(full - part * whole) < whole for full, part in zip(size, level, strict=True)):
            return float(whole)
    return said
