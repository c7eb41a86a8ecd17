"""The tiles of a slide as they are read for encoders, and their quality where it is asked for."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import SlideError
from pathencoder.features import finished
from pathencoder.features.job import Job
from pathencoder.features.plan import SlidePlan
from pathencoder.features.store import read_features
from pathencoder.files import of_one_input
from pathencoder.slides.grid import Grid, read_tile
from pathencoder.slides.quality import UNKNOWN, Quality, columns_of, quality_of
from pathencoder.slides.reader import RGB, Slide
from pathencoder.slides.tissue import find_tissue

_BLOCK = 256  # tiles that are measured before their rows are taken over

At = tuple[int, int]  # the corner of a tile


def tile_id(at: At) -> int:
    """64 bits of a tile's corner: rows are found again where the tissue rules have changed."""
    return (at[0] & 0xFFFFFFFF) << 32 | (at[1] & 0xFFFFFFFF)


@dataclass
class Tiles:
    """The tiles of a grid; several threads may read at the same time.

    Attributes:
        slide: The open slide.
        grid: Where the tiles lie.
        interpolation: With which they are resampled.
        measure: Also measure the quality of what is read.
    """

    slide: Slide
    grid: Grid
    interpolation: str
    measure: bool = False
    _measured: dict[int, bytes] = field(default_factory=dict)

    @functools.cached_property
    def all(self) -> list[At]:
        """The corners of all tiles."""
        return [(x, y) for x, y in self.grid.coords.tolist()]

    def read(self, at: At) -> RGB:
        """The pixels of a tile. Raises SlideError."""
        tile = read_tile(self.slide, self.grid, *at, interpolation=self.interpolation)
        if self.measure:
            self._measured[tile_id(at)] = quality_of(tile, self.grid.target_mpp).pack()
        return tile

    def tag(self, at: At) -> bytes:
        """The quality of a tile that was read, as the journal keeps it; b"" where not measured."""
        return self._measured[tile_id(at)] if self.measure else b""

    def tag_anew(self, at: At) -> bytes:
        """As `tag`, of a tile that is read for it alone; unknown where it cannot be read."""
        try:
            self.read(at)
        except SlideError:
            return UNKNOWN.pack()
        return self._measured.pop(tile_id(at))


def complete(file: Path, job: Job, tiles: Tiles) -> list[str]:
    """Take over the rows of a finished file that lacks the quality of its tiles, and measure it.

    Args:
        file: The feature file, made from the same slide with the same settings, or none.
        job: The work on it.
        tiles: Of its grid.

    Returns:
        A note, where there is such a file.

    Raises:
        Mismatch: It is damaged.
    """
    from pathencoder.runtime import pick_workers

    if not file.exists() or finished.read_facts(file).has_quality:
        return []
    with of_one_input():
        old = read_features(file)
    assert old.coords is not None
    todo = [
        (place, (x, y))
        for place, (x, y) in enumerate(old.coords.tolist())
        if tile_id((x, y)) not in job.journal
    ]
    with ThreadPoolExecutor(pick_workers(job.settings.workers)) as pool:
        for start in range(0, len(todo), _BLOCK):
            part = todo[start : start + _BLOCK]
            tags = pool.map(tiles.tag_anew, [at for _, at in part])
            rows = [(place, tile_id(at), tag) for (place, at), tag in zip(part, tags, strict=True)]
            job.take_over(rows, lambda places: old.rows[list(places)])
            job.progress(min(start + _BLOCK, len(todo)), len(tiles.all))
    return ["the rows are those of an earlier run; the quality of the tiles was added"]


def quality_columns(
    job: Job, slide: Slide, plan: SlidePlan, corners: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """The columns of a feature file, from the journal and the slide's tissue.

    Args:
        job: The work on the file, with a row for each corner.
        slide: The open slide.
        plan: Its tiles and tissue.
        corners: Of the tiles in the file, [N, 2].
    """
    found = [Quality.unpack(job.journal.tag(tile_id((x, y)))) for x, y in corners.tolist()]
    values = np.array(found, np.float32).reshape(-1, len(UNKNOWN))
    tissue = pen = plan.tissue
    if job.settings.tissue is not None or job.settings.coords is not None:
        pen = find_tissue(slide, plan.scale.value)
        tissue = pen if job.settings.coords is not None else plan.tissue
    return columns_of(values, corners, plan.grid.side, tissue=tissue, pen=pen)
