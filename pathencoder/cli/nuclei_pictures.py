"""What `pathencoder nuclei` looks at: images, one region of a slide, or a whole slide as regions that overlap a little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x, y, width, height in level-0 pixels

REGION = 4096  # level-0 px on a side of a slide's regions
_OVERLAP = 128  # level-0 px that a region sees beyond itself, so that nuclei on its border are whole
_TISSUE = 0.01  # share of tissue from which a region is looked at


@dataclass(frozen=True)
class Picture:
    """One image to look at. name: of its output files. region: the part of a slide that is read, None for an image.

    core: the part of the slide whose nuclei are kept (those with their middle in it), so that overlapping regions count none twice.
    """

    file: Path
    name: str
    region: Box | None = None
    core: Box | None = None

    def __str__(self) -> str:
        return str(self.file) if self.region is None else f"{self.file} {self.name}"


def find_pictures(images: Sequence[Path], region: Box | None) -> list[Picture]:
    """The images in files and folders, each with a name of its own. Label maps and overlays of an earlier run are left out of folders."""
    from pathencoder.images import list_images

    files: list[Path] = []
    for path in dict.fromkeys(images):
        files += [p for p in list_images(path) if not p.stem.endswith((".labels", ".overlay"))] if path.is_dir() else [path]
    counts = Counter(f.stem for f in files)
    names = [f.stem if counts[f.stem] == 1 else f"{f.resolve().parent.name}-{f.name.replace('.', '-')}" for f in files]
    if len(set(names)) < len(names):
        doubled = next(n for n, c in Counter(names).items() if c > 1)
        raise click.UsageError(f"two images would both be called {doubled!r}: give them to two commands, with an --out each")
    return [Picture(f, n, region) for f, n in zip(files, names, strict=True)]


def with_regions(pictures: Sequence[Picture], mpp: float | None) -> list[Picture]:
    """The same, but a slide without a region is replaced by its regions with tissue; one that cannot be read stays, to fail by itself."""
    from pathencoder.cli.inputs import is_slide
    from pathencoder.errors import PathEncoderError

    found: list[Picture] = []
    for picture in pictures:
        try:
            whole = picture.region is None and is_slide(picture.file)
            found += regions_of(picture, mpp) if whole else [picture]
        except PathEncoderError:
            found.append(picture)
    return found


def regions_of(picture: Picture, mpp: float | None) -> list[Picture]:
    """The regions of a slide that hold tissue. Raises SlideError, MissingMpp."""
    import numpy as np

    from pathencoder.slides.reader import open_slide
    from pathencoder.slides.tissue import find_tissue

    slide = open_slide(picture.file)
    try:
        x, y, width, height = slide.bounds
        xs, ys = (np.arange(start, start + length, REGION) for start, length in ((x, width), (y, height)))
        share = find_tissue(slide, slide.mpp(mpp).value).share(xs.astype(float), ys.astype(float), float(REGION))
    finally:
        slide.close()
    return [_region(picture, int(xs[j]), int(ys[i]), slide.bounds) for i, j in zip(*np.nonzero(share > _TISSUE), strict=True)]


def _region(picture: Picture, x: int, y: int, bounds: Box) -> Picture:
    right, bottom = bounds[0] + bounds[2], bounds[1] + bounds[3]
    core = (x, y, min(REGION, right - x), min(REGION, bottom - y))
    left, top = max(x - _OVERLAP, bounds[0]), max(y - _OVERLAP, bounds[1])
    seen = (left, top, min(x + REGION + _OVERLAP, right) - left, min(y + REGION + _OVERLAP, bottom) - top)
    return Picture(picture.file, f"{picture.name}_x{x}_y{y}", seen, core)


def read_picture(picture: Picture, mpp: float | None) -> tuple[NDArray[np.uint8], float | None]:
    """The pixels of a picture, and micrometres per pixel where they are known. Raises ImageError, SlideError, MissingMpp."""
    from pathencoder.cli.inputs import is_slide
    from pathencoder.errors import SlideError
    from pathencoder.images import open_image
    from pathencoder.slides.reader import open_slide

    if picture.region is None and not is_slide(picture.file):
        return open_image(picture.file), mpp
    slide = open_slide(picture.file)
    try:
        resolution = slide.mpp(mpp).value
        if picture.region is None:
            raise SlideError(f"{picture.file}: no part of it could be read to look for tissue. Give a --region X Y WIDTH HEIGHT")
        x, y, width, height = picture.region
        return slide.read(x, y, 0, width, height), resolution
    finally:
        slide.close()
