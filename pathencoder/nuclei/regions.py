"""The regions of an image or slide that are segmented one after the other.

Of a slide they are squares with tissue, which overlap a little, or the regions that a user gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.slides.tissue import TissueMask

Box = tuple[int, int, int, int]  # x, y, width, height in level-0 pixels

REGION = 4096  # level-0 px on a side of a slide's regions
_OVERLAP = 128  # level-0 px that a region sees beyond itself: nuclei on its border are whole
_LEAST_TISSUE = 1  # level-0 px of tissue from which a region is segmented: rounding is less
_MOST = 10_000 * 10_000  # px of one region, which take about 2 GB


@dataclass(frozen=True)
class Region:
    """One region.

    Attributes:
        box: The level-0 pixels that are read.
        core: The part of them whose nuclei are kept (those with their centroid in it), so that
            overlapping regions count no nucleus twice. None: all of the box.
        notes: What the user should know of the region.
        problem: Why it cannot be read; empty where it can.
    """

    box: Box
    core: Box | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """Its place as text: `x0_y4096` of a slide's grid, `x0_y0_w500_h400` of a given one."""
        if self.core:
            return "x{}_y{}".format(*self.core)
        return "x{}_y{}_w{}_h{}".format(*self.box)


def regions_with_tissue(
    tissue: TissueMask, bounds: Box, overlap: int | None = None
) -> list[Region]:
    """The squares of a slide that hold any tissue, row by row; specks are no tissue.

    Args:
        tissue: Of the slide.
        bounds: The scanned area.
        overlap: Level-0 pixels that a region sees beyond its core. None: enough for nuclei.

    Returns:
        Regions whose cores do not overlap.
    """
    x, y, width, height = bounds
    beyond = _OVERLAP if overlap is None else overlap
    xs, ys = np.arange(x, x + width, REGION), np.arange(y, y + height, REGION)
    share = tissue.share(xs.astype(float), ys.astype(float), float(REGION))
    places = zip(*np.nonzero(share * REGION**2 > _LEAST_TISSUE), strict=True)
    return [_square(int(xs[j]), int(ys[i]), bounds, beyond) for i, j in places]


def given_regions(boxes: Iterable[Sequence[int]], size: tuple[int, int], name: str) -> list[Region]:
    """The regions that a user gave, clipped to the image or slide; equal ones once.

    Args:
        boxes: x, y, width, height each.
        size: Width and height of the image or slide, in level-0 pixels.
        name: What messages call the image or slide.

    Returns:
        A region for each; one that lies outside, or is too large, has a `problem`.

    Raises:
        ConfigError: A box is not four whole numbers, or is empty.
    """
    return list({r.name: r for r in [_clipped(check_box(b), size, name) for b in boxes]}.values())


def check_box(box: Sequence[int]) -> Box:
    """A box of plain whole numbers. Raises ConfigError for anything else."""
    numbers = list(box) if isinstance(box, (list, tuple, np.ndarray)) else []
    whole = [isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers]
    if len(numbers) != 4 or not all(whole) or min(numbers) < 0 or min(numbers[2:]) < 1:
        raise ConfigError(
            f"region {box!r}: give x, y, width and height in level-0 pixels, four whole numbers,"
            " as in (20000, 15000, 4000, 4000)"
        )
    x, y, width, height = (int(n) for n in numbers)
    return x, y, width, height


def _square(x: int, y: int, bounds: Box, overlap: int) -> Region:
    right, bottom = bounds[0] + bounds[2], bounds[1] + bounds[3]
    core = (x, y, min(REGION, right - x), min(REGION, bottom - y))
    left, top = max(x - overlap, bounds[0]), max(y - overlap, bounds[1])
    end, under = min(x + REGION + overlap, right), min(y + REGION + overlap, bottom)
    return Region((left, top, end - left, under - top), core)


def _clipped(box: Box, size: tuple[int, int], name: str) -> Region:
    x, y, given_width, given_height = box
    text = f"region {x} {y} {given_width} {given_height}"
    width, height = min(given_width, size[0] - x), min(given_height, size[1] - y)
    if width <= 0 or height <= 0:
        problem = f"{name}: {text} lies outside: the whole has {size[0]} x {size[1]} px"
        return Region(box, problem=problem)
    if width * height > _MOST:
        problem = (
            f"{name}: {text} has {width * height / 1e6:,.0f} million px, more than"
            f" {_MOST // 10**6}: give smaller regions, or none to segment the whole slide"
        )
        return Region(box, problem=problem)
    clipped = (width, height) != (given_width, given_height)
    notes = (f"{text} reaches over the edge: clipped to {width} x {height} px",) if clipped else ()
    return Region((x, y, width, height), notes=notes)
