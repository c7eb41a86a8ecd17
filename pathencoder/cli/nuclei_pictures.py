"""The parts of an image or slide that `pathencoder nuclei` looks at, and their pixels.

An image is one part, a slide its regions with tissue, which overlap a little; or both are the
regions that the user asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ImageError, SlideError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pathencoder.slides.reader import Slide
    from pathencoder.slides.tissue import TissueMask

    Pixels = NDArray[np.uint8]

Box = tuple[int, int, int, int]  # x, y, width, height in level-0 pixels

REGION = 4096  # level-0 px on a side of a slide's regions
_OVERLAP = 128  # level-0 px that a region sees beyond itself: nuclei on its border are whole
_TISSUE = 0.01  # share of tissue from which a region is looked at
_SAMPLES, _SAMPLE_UM = 32, 128  # fields, and um on a side, that a slide's stain is judged by
_MOST = 10_000 * 10_000  # px of one region, which take about 2 GB
FINEST, COARSEST = 0.05, 2.0  # um per pixel between which nuclei can be distinguished


@dataclass(frozen=True)
class Part:
    """One picture to look at.

    Attributes:
        suffix: Of the names of its output files, after the name of the input.
        box: The part of the input that is read; None: all of an image.
        core: The part whose nuclei are kept (those with their middle in it), so that overlapping
            regions count none twice.
        notes: What the user should know of it.
        problem: Why it cannot be read; empty where it can.
    """

    suffix: str = ""
    box: Box | None = None
    core: Box | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Parts:
    """What to look at, in order; and what the user should know of the input as a whole."""

    all: list[Part]
    notes: tuple[str, ...] = ()


class Opened(Protocol):
    """An input that is open.

    Attributes:
        mpp: Micrometres per pixel; None where nobody says it.
        mpp_source: Who says it: "given", "--mpp-csv", or a property or tag of the file.
        notes: What the user should know of the scale.
    """

    mpp: float | None
    mpp_source: str
    notes: tuple[str, ...]

    def sample(self) -> list[Pixels]:
        """Fields with tissue from all over a slide, to judge its stain by; none of an image."""

    def parts(self, regions: Sequence[Box]) -> Parts:
        """What to look at: the regions, or all of the input. Raises ImageError, SlideError."""

    def read(self, part: Part) -> Pixels:
        """uint8 [H, W, 3]. Raises ImageError, SlideError."""


@contextmanager
def opened(source: Source) -> Iterator[Opened]:
    """Open an input.

    Raises:
        ImageError: It is no image, or its scale does not let nuclei be distinguished.
        SlideError, MissingMpp: It cannot be read as a slide, or its scale cannot be believed.
    """
    if source.kind == "nothing":
        raise ImageError(f"{source.path}: {source.problem}")
    if source.kind == "image":
        yield _checked(_Image(source), source)
        return
    from pathencoder.slides.reader import open_slide

    slide = open_slide(source.path)
    try:
        yield _checked(_Slide(source, slide), source)
    finally:
        slide.close()


def _checked(found: Opened, source: Source) -> Opened:
    if found.mpp is not None and not FINEST <= found.mpp <= COARSEST:
        raise ImageError(
            f"{source.path}: {found.mpp:.4g} um/px ({found.mpp_source}); nuclei can be"
            f" distinguished from {FINEST:g} to {COARSEST:g} um/px. Give the true scale (--mpp), or"
            " a finer image"
        )
    return found


class _Image:
    """An image file, decoded when a part of it is first wanted."""

    def __init__(self, source: Source) -> None:
        from pathencoder.formats.image_scale import image_scale

        self._path = source.path
        scale = None if source.mpp else image_scale(source.path)
        self.mpp = source.mpp or (scale.value if scale else None)
        self.mpp_source = source.mpp_source or (scale.source if scale else "")
        self.notes = scale.notes if scale else ()

    @cached_property
    def _pixels(self) -> Pixels:
        from pathencoder.images import open_image

        return open_image(self._path, str(self._path))

    def sample(self) -> list[Pixels]:
        return []

    def parts(self, regions: Sequence[Box]) -> Parts:
        if not regions:
            return Parts([Part()])
        height, width = self._pixels.shape[:2]
        return Parts(_asked(regions, (width, height), self._path))

    def read(self, part: Part) -> Pixels:
        if part.box is None:
            return self._pixels
        x, y, width, height = part.box
        return self._pixels[y : y + height, x : x + width]


class _Slide:
    """A slide file."""

    def __init__(self, source: Source, slide: Slide) -> None:
        scale = slide.mpp(source.mpp)
        self._slide = slide
        self.mpp: float | None = scale.value
        self.mpp_source = source.mpp_source or scale.source
        self.notes = scale.notes

    @cached_property
    def _tissue(self) -> TissueMask:
        from pathencoder.slides.tissue import find_tissue

        return find_tissue(self._slide, self.mpp or 0)

    def sample(self) -> list[Pixels]:
        import numpy as np

        rows, columns = np.nonzero(self._tissue.mask)
        places = np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)
        x, y = columns[places] * self._tissue.scale[0], rows[places] * self._tissue.scale[1]
        side = round(_SAMPLE_UM / (self.mpp or 0.25))
        corners = np.stack([x, y], 1) + self._tissue.origin - side // 2
        found = (_read_or_none(self._slide, int(left), int(top), side) for left, top in corners)
        return [field for field in found if field is not None]

    def parts(self, regions: Sequence[Box]) -> Parts:
        if regions:
            return Parts(_asked(regions, self._slide.size, self._slide.path))
        from pathencoder.slides.tissue import refuse_dark

        refuse_dark(self._tissue, self._slide.path)
        return _with_tissue(self._tissue, self._slide.bounds)

    def read(self, part: Part) -> Pixels:
        assert part.box is not None
        x, y, width, height = part.box
        return self._slide.read(x, y, 0, width, height)


def _asked(regions: Sequence[Box], size: tuple[int, int], path: Path) -> list[Part]:
    """Regions as they were asked for, cut off at the edge of the input; each once."""
    found: dict[str, Part] = {}
    for region in regions:
        part = _cut_off(region, size, path)
        found.setdefault(part.suffix, part)
    return list(found.values())


def _cut_off(region: Box, size: tuple[int, int], path: Path) -> Part:
    x, y, asked_width, asked_height = region
    said = f"--region {x} {y} {asked_width} {asked_height}"
    width, height = min(asked_width, size[0] - x), min(asked_height, size[1] - y)
    if width <= 0 or height <= 0:
        problem = f"{path}: {said} lies outside: the whole has {size[0]} x {size[1]} px"
        return Part(_suffix(region), region, problem=problem)
    if width * height > _MOST:
        problem = (
            f"{path}: {said} has {width * height / 1e6:,.0f} million px, more than"
            f" {_MOST // 10**6}: give smaller regions, or none to have all of it looked at"
        )
        return Part(_suffix(region), region, problem=problem)
    clipped = (width, height) != (asked_width, asked_height)
    notes = (f"{said} reaches over the edge: cut off to {width} x {height} px",) if clipped else ()
    return Part(_suffix((x, y, width, height)), (x, y, width, height), notes=notes)


def _suffix(box: Box) -> str:
    return "_x{}_y{}_w{}_h{}".format(*box)


def _read_or_none(slide: Slide, x: int, y: int, side: int) -> Pixels | None:
    """A field of a slide; None where it is damaged."""
    try:
        return slide.read(x, y, 0, side, side)
    except SlideError:
        return None


def _with_tissue(tissue: TissueMask, bounds: Box) -> Parts:
    """The regions of a slide that hold tissue."""
    import numpy as np

    x, y, width, height = bounds
    xs, ys = np.arange(x, x + width, REGION), np.arange(y, y + height, REGION)
    share = tissue.share(xs.astype(float), ys.astype(float), float(REGION))
    places = zip(*np.nonzero(share > _TISSUE), strict=True)
    return Parts([_region(int(xs[j]), int(ys[i]), bounds) for i, j in places], tuple(tissue.notes))


def _region(x: int, y: int, bounds: Box) -> Part:
    right, bottom = bounds[0] + bounds[2], bounds[1] + bounds[3]
    core = (x, y, min(REGION, right - x), min(REGION, bottom - y))
    left, top = max(x - _OVERLAP, bounds[0]), max(y - _OVERLAP, bounds[1])
    end, under = min(x + REGION + _OVERLAP, right), min(y + REGION + _OVERLAP, bottom)
    return Part(f"_x{x}_y{y}", (left, top, end - left, under - top), core)
