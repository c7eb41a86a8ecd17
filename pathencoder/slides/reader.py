"""Open a slide: levels, micrometres per pixel and their source, bounds, and regions as RGB over white."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import over_white
from pathencoder.errors import MissingExtra, SlideError
from pathencoder.formats.file_kinds import (
    FOREIGN_SUFFIXES,
    SLIDE_SUFFIXES,
    TIFF_SUFFIXES,
    is_slide_tiff,
    looks_like_slide,
)
from pathencoder.slides import checks, dicom
from pathencoder.slides.mpp import Mpp, find_mpp
from pathencoder.walk import NEITHER, is_special

__all__ = [
    "FOREIGN_SUFFIXES",
    "SLIDE_SUFFIXES",
    "TIFF_SUFFIXES",
    "OpenSlideReader",
    "Slide",
    "best_level",
    "is_slide_tiff",
    "looks_like_slide",
    "open_slide",
    "true_downsample",
]

RGB = NDArray[np.uint8]
_CONVERT = (
    "Export it with the scanner's software, or convert it to DICOM (wsidicomizer, whose bioformats"
    " extra reads most formats)"
)


class Slide(Protocol):
    """What the pipeline needs of a slide. A new format is one class with these members.

    size: (width, height) in level-0 pixels. downsamples: one factor a level, 1.0 first. bounds: (x,
    y, width, height) of the scanned
    area in level-0 pixels. notes: what the reader does to the pixels, as sentences. Reading is safe
    from several threads.
    """

    path: Path
    size: tuple[int, int]
    downsamples: tuple[float, ...]
    bounds: tuple[int, int, int, int]
    vendor: str
    notes: tuple[str, ...]

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel; `given` overrides the file. Raises MissingMpp."""

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """uint8 [height, width, 3] at a level, top left at level-0 (x, y); white outside the slide.

        Raises SlideError.
        """

    def close(self) -> None:
        """Give the file handles back."""


def open_slide(path: str | Path) -> Slide:
    """Open any slide that OpenSlide reads. A folder of DICOM files is one slide.

    Args:
        path: A slide file, any file of a DICOM slide, or the folder of one.

    Raises:
        SlideError: Missing, damaged, of a format that OpenSlide does not read, or of colours that
            it would show wrongly.
        MissingExtra: OpenSlide is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file. Check the path")
    if is_special(path):
        raise SlideError(f"{path}: {NEITHER}")
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        raise SlideError(f"{path}: OpenSlide does not read {path.suffix} files. {_CONVERT}")
    file = dicom.files_of_slide(path)[0] if path.is_dir() else path
    if file.stat().st_size == 0:
        raise SlideError(f"{path}: the file is empty. Copy it again from where it came")
    if damaged := checks.damaged_tiles(file):
        raise SlideError(f"{path}: {damaged}")
    slide = OpenSlideReader(path, file)
    try:
        wrong = (
            checks.oversized_tiles(slide.properties)
            or checks.false_colours(file)
            or checks.unreadable(slide, file)
            or checks.blank(slide, file)
        )
    except BaseException:
        slide.close()
        raise
    if wrong:
        slide.close()
        raise SlideError(f"{path}: {wrong}")
    return slide


class OpenSlideReader:
    """A slide through OpenSlide, one handle a thread.

    A handle that has met an error stays in its error state (OpenSlide's documented behaviour), so
    it is dropped after an error and the next read opens a new one: one bad tile costs one tile.
    """

    def __init__(self, path: Path, file: Path) -> None:
        self.path = path
        self._file = file
        self._openslide = _import_openslide()
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        handle = self._handle()
        self.properties: Mapping[str, str] = _properties(handle)
        self.size = (int(handle.dimensions[0]), int(handle.dimensions[1]))
        self._addressing = tuple(float(d) for d in handle.level_downsamples)
        levels = zip(handle.level_dimensions, self._addressing, strict=True)
        self.downsamples = tuple(
            true_downsample(self.size, size, factor) for size, factor in levels
        )
        self.vendor = self.properties.get("openslide.vendor", "unknown")
        self.bounds = _bounds(self.properties, self.size)
        self.notes = checks.notes_on(file)

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel, from `given` or the slide's properties. Raises MissingMpp."""
        return find_mpp(self.properties, name=str(self.path), given=given)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """uint8 [height, width, 3] at a level, top left at level-0 (x, y).

        Raises SlideError for a damaged region.
        """
        # OpenSlide divides by its own downsample again
        factor = self._addressing[level] / self.downsamples[level]
        try:
            region = self._handle().read_region(
                (round(x * factor), round(y * factor)), level, (width, height)
            )
        except self._openslide.OpenSlideError as error:
            self._drop_handle()
            raise SlideError(
                f"{self.path}: region at ({x}, {y}), level {level}, cannot be read: {error}"
            ) from error
        return over_white(np.asarray(region))  # where nothing was scanned, a slide is transparent

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
        self._local = threading.local()

    def _handle(self) -> Any:
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = self._open()
            with self._lock:
                self._handles.append(handle)
        return handle

    def _open(self) -> Any:
        try:
            return self._openslide.OpenSlide(str(self._file))
        except self._openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError(f"{self.path}: {checks.why_unsupported(self._file)}") from error
        except (self._openslide.OpenSlideError, OSError) as error:
            raise SlideError(f"{self.path}: {checks.why_unopenable(self._file, error)}") from error

    def _drop_handle(self) -> None:
        handle = self._local.handle
        self._local.handle = None
        with self._lock:
            self._handles.remove(handle)
        handle.close()


def best_level(downsamples: tuple[float, ...], wanted: float) -> int:
    """The coarsest level that is not coarser than `wanted` (a downsample.

    One percent of slack for rounded level sizes).
    """
    fitting = [level for level, factor in enumerate(downsamples) if factor <= wanted * 1.01]
    return max(fitting, key=lambda level: downsamples[level], default=0)


def true_downsample(size: tuple[int, int], level: tuple[int, int], said: float) -> float:
    """The factor between level 0 and a level.

    A whole number where the sizes fit one, else what the reader says.

    Levels are made by whole factors and cut off to whole pixels. OpenSlide divides the sizes, which
    puts 4.002 for 4 and misplaces a tile by more the farther it lies from the corner.
    """
    whole = round(said)
    fits = all(abs(full - part * whole) < whole for full, part in zip(size, level, strict=True))
    return float(whole) if fits else said


def _import_openslide() -> Any:
    try:
        import openslide
    # OSError: the Python part is there, the C library is not
    except (ImportError, OSError) as error:
        raise MissingExtra.of("wsi", "Reading whole slides (OpenSlide)") from error
    return openslide


def _properties(slide: Any) -> dict[str, str]:
    """OpenSlide's properties, but those whose names are no text.

    The binding lists them and cannot find them again.
    """
    found = {}
    for name in slide.properties:
        with contextlib.suppress(KeyError):
            found[name] = slide.properties[name]
    return found


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The scanned area, clipped to the slide; the whole slide where none is given or none is left."""
    keys = [f"openslide.bounds-{k}" for k in ("x", "y", "width", "height")]
    if not all(k in properties for k in keys):
        return (0, 0, *size)
    x, y, width, height = (math.floor(float(properties[k])) for k in keys)
    x, y = max(x, 0), max(y, 0)
    width, height = min(width, size[0] - x), min(height, size[1] - y)
    return (x, y, width, height) if width > 0 and height > 0 else (0, 0, *size)
