"""Slides through OpenSlide, with what it would show wrongly refused."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.arrays import over_white
from pathencoder.errors import MissingExtra, SlideError
from pathencoder.slides import checks, dicom
from pathencoder.slides.levels import RGB, true_downsample
from pathencoder.slides.mpp import Mpp, find_mpp
from pathencoder.slides.reader import Slide

_CACHE_BYTES = 32 << 20  # OpenSlide's own default


def open_file(path: Path) -> Slide:
    """Open a file, or a folder of DICOM files; `pathencoder.slides.reader.open_slide` calls this.

    Args:
        path: An existing file or folder.

    Returns:
        The open slide.

    Raises:
        SlideError: It is empty, damaged, of a format that OpenSlide does not read, or would be
            shown with false colours.
        MissingExtra: OpenSlide is not installed.
    """
    file = dicom.files_of_slide(path)[0] if path.is_dir() else path
    if damaged := checks.damaged_tiles(file):
        raise SlideError(f"{path}: {damaged}")
    slide = OpenSlideReader(path, file)
    try:
        wrong = (
            checks.oversized_tiles(slide.properties)
            or checks.false_colours(file)
            or checks.unreadable(file, generic=slide.vendor == "generic-tiff")
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
    """A slide through OpenSlide, with one handle for each thread.

    After an error a handle stays in its error state (OpenSlide's documented behaviour). It is
    closed, and the next read opens a new one: one damaged tile costs one tile.

    Args:
        path: What the user named: the slide in messages.
        file: The file to open.

    Raises:
        SlideError: OpenSlide cannot open the file.
        MissingExtra: OpenSlide is not installed.
    """

    def __init__(self, path: Path, file: Path) -> None:
        self.path = path
        self._file = file
        self._openslide = _import_openslide()
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        self._cache = _shared_cache(self._openslide)
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
        self.reader = f"OpenSlide {self._openslide.__library_version__}"
        self.notes = checks.notes_on(file)
        if self.vendor == "generic-tiff":
            self.notes += checks.other_images(file)

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel; see `Slide.mpp`."""
        return find_mpp(self.properties, name=str(self.path), given=given)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """Read a region, uint8 [height, width, 3]; see `Slide.read`."""
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
            opened = self._openslide.OpenSlide(str(self._file))
            if self._cache is not None:
                opened.set_cache(self._cache)
            return opened
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


def _import_openslide() -> Any:
    try:
        import openslide
    # OSError: the Python part is there, the C library is not
    except (ImportError, OSError) as error:
        raise MissingExtra.of("wsi", "Reading whole slides (OpenSlide)") from error
    return openslide


def _shared_cache(openslide: Any) -> Any:
    """One cache of decoded tiles for the handles of all threads, which read neighbouring tiles.

    Else each handle has one of this size.

    Returns:
        None where the C library is older than 4.0, which shares none.
    """
    try:
        return openslide.OpenSlideCache(_CACHE_BYTES)
    except (AttributeError, openslide.OpenSlideError):
        return None


def _properties(slide: Any) -> dict[str, str]:
    """OpenSlide's properties, without those whose names are not text and cannot be looked up."""
    found = {}
    for name in slide.properties:
        with contextlib.suppress(KeyError):
            found[name] = slide.properties[name]
    return found


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The scanned area, clipped to the slide; the whole slide where none is stated or left."""
    keys = [f"openslide.bounds-{k}" for k in ("x", "y", "width", "height")]
    if not all(k in properties for k in keys):
        return (0, 0, *size)
    x, y, width, height = (math.floor(float(properties[k])) for k in keys)
    x, y = max(x, 0), max(y, 0)
    width, height = min(width, size[0] - x), min(height, size[1] - y)
    return (x, y, width, height) if width > 0 and height > 0 else (0, 0, *size)
