"""Open a slide: levels, micrometres per pixel, bounds, and regions as RGB over white."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pathencoder.errors import MissingExtra, PathEncoderError, SlideError
from pathencoder.formats.file_kinds import FASTSLIDE, FOREIGN_SUFFIXES, OPENSLIDE, OTHERS, READERS
from pathencoder.formats.tiff_tags import levels_in, read_pages
from pathencoder.remote.objects import is_remote, url_path
from pathencoder.slides.dicom import missing_instances, read_header
from pathencoder.slides.levels import RGB
from pathencoder.slides.mpp import Mpp
from pathencoder.walk import NEITHER, expanded, is_special

__all__ = ["RGB", "Slide", "best_level", "open_slide"]

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
        vendor: The format, as the reader names it.
        reader: The library that reads it, and its version.
        notes: How the reader changes the pixels, as sentences.
    """

    path: Path
    size: tuple[int, int]
    downsamples: tuple[float, ...]
    bounds: tuple[int, int, int, int]
    vendor: str
    reader: str
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
    """Open a slide. A folder of DICOM files is one slide.

    The readers of its format are tried in order: OpenSlide, then tifffile and fastslide for what
    OpenSlide refuses, and Pillow for plain images. Another reader than the first is a note.

    Args:
        path: A slide file, any file of a DICOM slide, or the folder of one.

    Returns:
        The open slide; close it after use.

    Raises:
        SlideError: The file does not exist, is damaged, is of a format without a reader, or
            would be shown with false colours.
        MissingExtra: The reader is not installed.
    """
    if is_remote(path):
        raise SlideError(
            f"{url_path(path)}: a remote slide must be copied here first: pathencoder.encode_slide"
            " and `pathencoder encode` do so"
        )
    path = expanded(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file. Check the path")
    if is_special(path):
        raise SlideError(f"{path}: {NEITHER}")
    suffix = path.suffix.lower()
    if (path.is_dir() or read_header(path)) and (missing := missing_instances(path)):
        raise SlideError(f"{path}: {missing}")
    if path.is_dir():
        return _first_of((OPENSLIDE, FASTSLIDE), path)
    if path.stat().st_size == 0:
        raise SlideError(f"{path}: the file is empty. Copy it again from where it came")
    if suffix in FOREIGN_SUFFIXES:
        raise SlideError(f"{path}: there is no reader for {path.suffix} files. {_CONVERT}")
    return _first_of(READERS.get(suffix, OTHERS), path)


def _first_of(readers: Sequence[str], path: Path) -> Slide:
    """The slide through the first reader that opens it with all its levels.

    A reader that shows one level of several is the last resort.
    """
    refusals: list[PathEncoderError] = []
    levels = 1 if path.is_dir() else levels_in(read_pages(path))
    flat: Slide | None = None
    for name in readers:
        try:
            slide: Slide = importlib.import_module(name).open_file(path)
        except MissingExtra as error:
            if name == readers[0] and flat is None:
                raise
            refusals.append(error)
        except SlideError as error:
            refusals.append(error)
        else:
            if len(slide.downsamples) > 1 or levels == 1:
                if flat is None:
                    return _noted(slide, refusals)
                flat.close()
                why = f"{flat.reader} shows one of its {levels} levels"
                slide.notes = (*slide.notes, f"read with {slide.reader}: {why}")
                return slide
            flat = _keep_first(flat, slide)
    if flat is not None:
        flat.notes = (*flat.notes, f"one of its {levels} levels is read, which is slower")
        return flat
    raise _refusal(path, refusals)


def _keep_first(first: Slide | None, slide: Slide) -> Slide:
    if first is None:
        return slide
    slide.close()
    return first


def _noted(slide: Slide, refusals: Sequence[PathEncoderError]) -> Slide:
    """The slide with a note on the readers that refused it."""
    if refusals:
        reason = str(refusals[0]).removeprefix(f"{slide.path}: ").partition(". ")[0]
        reason = reason.removeprefix("OpenSlide does not read it: ")
        slide.notes = (*slide.notes, f"read with {slide.reader}, not with OpenSlide: {reason}")
    return slide


def _refusal(path: Path, refusals: Sequence[PathEncoderError]) -> PathEncoderError:
    """The first reader's reason, and which extra may help."""
    missing = [str(e) for e in refusals if isinstance(e, MissingExtra)]
    first = refusals[0]
    known = not path.is_dir() and (read_pages(path) or read_header(path))
    if not missing or not known:
        return first
    return SlideError(f"{first}. Or let another reader try: {missing[0]}")


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
