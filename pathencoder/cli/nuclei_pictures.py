"""The images and slides of `pathencoder nuclei`, opened: their scale, parts, pixels and nuclei."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathencoder.nuclei.network import NucleiNetwork
    from pathencoder.nuclei.prepare import SlideStain
    from pathencoder.nuclei.regions import Box, Region
    from pathencoder.nuclei.segment import Nuclei
    from pathencoder.nuclei.slide import SlideRegions

    Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """One image to segment: a region of an image or slide, or (None) all of an image."""

    region: Region | None = None

    @property
    def suffix(self) -> str:
        """Of the names of its output files, after the name of the input."""
        return f"_{self.region.name}" if self.region else ""


@dataclass(frozen=True)
class Parts:
    """What to segment, in order; and what the user should know of the input as a whole."""

    all: list[Part]
    notes: tuple[str, ...] = ()


class Opened(Protocol):
    """An input that is open.

    Attributes:
        mpp: Micrometres per pixel; None where nothing states it.
        mpp_source: Where it is from: "given", "--mpp-csv", or a property or tag of the file.
        notes: What the user should know of the scale.
    """

    mpp: float | None
    mpp_source: str
    notes: tuple[str, ...]

    @property
    def calibration(self) -> SlideStain | None:
        """Stain and thresholds that all parts share; None: each part is judged by itself."""

    def parts(self, regions: Sequence[Box]) -> Parts:
        """The regions, or all of the input. Raises ImageError, SlideError."""

    def read(self, part: Part) -> Pixels:
        """uint8 [H, W, 3]. Raises ImageError, SlideError."""

    def segment(self, part: Part, network: NucleiNetwork) -> tuple[Nuclei, Pixels]:
        """The nuclei of a part, and its pixels. Raises ImageError, SlideError."""


@contextmanager
def opened(
    source: Source, stain: str | None = None, overlap_um: float | None = None
) -> Iterator[Opened]:
    """Open an input.

    Args:
        source: The input.
        stain: As the user gave it.
        overlap_um: How far a region of a slide sees beyond itself. None: enough for nuclei.

    Raises:
        ImageError: It is no image, or its scale does not let nuclei be distinguished.
        SlideError: It cannot be read as a slide.
        MissingMpp: The scale of a slide is unknown or contradictory.
    """
    if source.kind == "nothing":
        raise ImageError(f"{source.path}: {source.problem}")
    if source.kind == "image":
        yield _Image(source, stain)
        return
    from pathencoder.nuclei.slide import SlideRegions
    from pathencoder.slides.reader import open_slide

    slide = open_slide(source.here)
    try:
        regions = SlideRegions(
            slide,
            mpp=source.mpp,
            stain=stain,
            mpp_source=source.mpp_source,
            overlap_um=overlap_um,
        )
        yield _Slide(regions)
    finally:
        slide.close()


class _Image:
    """An image file, decoded when its pixels are first needed."""

    calibration = None

    def __init__(self, source: Source, stain: str | None) -> None:
        from pathencoder.formats.image_scale import image_scale
        from pathencoder.nuclei.scale import check_scale

        self._path, self._stain = source.path, stain
        scale = None if source.mpp else image_scale(source.path)
        self.mpp = source.mpp or (scale.value if scale else None)
        self.mpp_source = source.mpp_source or (scale.source if scale else "")
        self.notes = scale.notes if scale else ()
        if self.mpp is not None:
            check_scale(self.mpp, self.mpp_source, str(source.path))

    @cached_property
    def _pixels(self) -> Pixels:
        from pathencoder.images import open_image

        return open_image(self._path, str(self._path))

    def parts(self, regions: Sequence[Box]) -> Parts:
        from pathencoder.nuclei.regions import given_regions

        if not regions:
            return Parts([Part()])
        height, width = self._pixels.shape[:2]
        given = given_regions(regions, (width, height), str(self._path))
        return Parts([Part(region) for region in given])

    def read(self, part: Part) -> Pixels:
        if part.region is None:
            return self._pixels
        if part.region.problem:
            raise ImageError(part.region.problem)
        x, y, width, height = part.region.box
        return self._pixels[y : y + height, x : x + width]

    def segment(self, part: Part, network: NucleiNetwork) -> tuple[Nuclei, Pixels]:
        from dataclasses import replace

        from pathencoder.nuclei import segment

        pixels = self.read(part)
        found = segment.segment_nuclei(pixels, mpp=self.mpp, stain=self._stain, network=network)
        notes = part.region.notes if part.region else ()
        return replace(found, notes=(*notes, *found.notes)), pixels


class _Slide:
    """A slide file."""

    def __init__(self, slide: SlideRegions) -> None:
        self._slide = slide
        self.mpp: float | None = slide.mpp
        self.mpp_source = slide.mpp_source
        self.notes = slide.notes

    @property
    def calibration(self) -> SlideStain | None:
        return self._slide.calibration

    def parts(self, regions: Sequence[Box]) -> Parts:
        found = [Part(region) for region in self._slide.regions(regions or None)]
        return Parts(found, () if regions else tuple(self._slide.tissue.notes))

    def read(self, part: Part) -> Pixels:
        assert part.region is not None
        return self._slide.read(part.region)

    def segment(self, part: Part, network: NucleiNetwork) -> tuple[Nuclei, Pixels]:
        assert part.region is not None
        found = self._slide.segment(part.region, network)
        return found.nuclei, found.image
