"""Open a slide: levels, micrometres per pixel, bounds, and regions as RGB over white."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import SlideError
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, OPENSLIDE, READERS
from pathencoder.slides.mpp import Mpp
from pathencoder.walk import NEITHER, is_special

RGB = NDArray[np.uint8]
_CONVERT = (
    "Export it with the scanner's software, or convert it to DICOM (wsidicomizer, whose bioformats"
    " extra reads most formats)"
)


class Slide(Protocol):
    """An open slide. A new format is one class with these members.

    Several threads may read at the same time.

    Attributes:
        path: The file or folder.
        size: Width and height in level-0 pixels.
        downsamples: One factor for each level, 1.0 first.
        bounds: x, y, width and height of the scanned area in level-0 pixels.
        vendor: The format, as OpenSlide names it.
        notes: How the reader changes the pixels, as sentences.
    """

    path: Path
    size: tuple[int, int]
    downsamples: tuple[float, ...]
    bounds: tuple[int, int, int, int]
    vendor: str
    notes: tuple[str, ...]

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel.

        Args:
            given: The user's scale; overrides the file.

        Raises:
            MissingMpp: The slide states no scale, or one that is not plausible.
        """

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """Read a region; outside the slide it is white.

        Args:
            x: Left edge in level-0 pixels.
            y: Top edge in level-0 pixels.
            level: The level to read.
            width: In pixels of the level.
            height: In pixels of the level.

        Returns:
            uint8 [height, width, 3].

        Raises:
            SlideError: The region is damaged.
        """

    def close(self) -> None:
        """Close the file handles."""


def open_slide(path: str | Path) -> Slide:
    """Open a slide with the reader of its format. A folder of DICOM files is one slide.

    Args:
        path: A slide file, any file of a DICOM slide, or the folder of one.

    Returns:
        The open slide; close it after use.

    Raises:
        SlideError: The file does not exist, is damaged, is of a format without a reader, or
            would be shown with false colours.
        MissingExtra: The reader is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file. Check the path")
    if is_special(path):
        raise SlideError(f"{path}: {NEITHER}")
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        raise SlideError(f"{path}: there is no reader for {path.suffix} files. {_CONVERT}")
    module = importlib.import_module(READERS.get(path.suffix.lower(), OPENSLIDE))
    slide: Slide = module.open_file(path)
    return slide


def best_level(downsamples: tuple[float, ...], wanted: float) -> int:
    """The coarsest level that is fine enough.

    Args:
        downsamples: One factor for each level.
        wanted: The greatest factor; 1 % more is accepted, for level sizes that were rounded.

    Returns:
        The level's number; 0 where none is fine enough.
    """
    fitting = [level for level, factor in enumerate(downsamples) if factor <= wanted * 1.01]
    return max(fitting, key=lambda level: downsamples[level], default=0)
