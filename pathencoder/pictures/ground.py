"""The picture of a slide that maps of its tiles are laid on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.errors import ConfigError, MissingExtra, MissingMpp, PathEncoderError, SlideError
from pathencoder.features.identity import identify_slide, slide_stat
from pathencoder.features.provenance import TISSUE
from pathencoder.pictures.colours import RGB
from pathencoder.pictures.located import Tiles
from pathencoder.slides.filters import Mask
from pathencoder.slides.overview import thumbnail
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.slides.tissue import TissueMask, find_tissue

LONGEST = 1200  # pixels of a picture's longer side
_MARGIN = 0.5  # tiles around a map without a slide
_ASSUMED_MPP, _FINEST = 0.5, 1e-3  # of a thumbnail: `longest` alone decides its size
_OTHER_TISSUE = (
    "the outline is the tissue that this version finds; the tiles were chosen by other rules: {}"
)


@dataclass(frozen=True)
class Ground:
    """The picture under a map.

    Attributes:
        image: uint8 [h, w, 3]; white where the slide is not at hand.
        origin: Where the picture begins: x, y in level-0 pixels.
        scale: Level-0 pixels per pixel of the picture, in x and y.
        tissue: The tissue as `find_tissue` gives it; None where it is not known.
        mpp: Micrometres per level-0 pixel; None where it is unknown.
        slide: The slide that was read; None: the picture is white.
        notes: What is missing and why, as sentences.
    """

    image: RGB
    origin: tuple[float, float]
    scale: tuple[float, float]
    tissue: TissueMask | None = None
    mpp: float | None = None
    slide: Path | None = None
    notes: tuple[str, ...] = ()

    def boxes(self, tiles: Tiles) -> NDArray[np.int64]:
        """The pixels of every tile: left, top, right, bottom, int64 [N, 4].

        Neighbouring tiles share their edges. Overlapping tiles get their middles, one step wide.
        """
        begins = tiles.corners + (tiles.side - tiles.step) / 2
        ends = np.stack([_joined(begins[:, axis], tiles.step) for axis in (0, 1)], axis=1)
        edges = (np.hstack([begins, ends]) - np.tile(self.origin, 2)) / np.tile(self.scale, 2)
        edges = np.rint(edges).astype(np.int64)
        edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
        height, width = self.image.shape[:2]
        return np.asarray(np.clip(edges, 0, [width, height, width, height]))

    def outline(self) -> Mask | None:
        """The tissue without its small holes, at the size of the picture: bool [h, w]."""
        if self.tissue is None or self.mpp is None:
            return None
        mask = Image.fromarray(self.tissue.outline(self.mpp).astype(np.uint8) * 255)
        size = self.image.shape[1], self.image.shape[0]
        return np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127


def _joined(begins: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Where tiles end along one axis: where their neighbours begin, whose corners were rounded."""
    ends, starts = begins + step, np.unique(begins)
    if not len(starts):
        return ends
    next_one = np.searchsorted(starts, ends - 1).clip(max=len(starts) - 1)
    return np.where(np.abs(starts[next_one] - ends) <= 1, starts[next_one], ends)


def ground_of(
    tiles: Tiles, slide: Path | None = None, *, longest: int = LONGEST
) -> tuple[Tiles, Ground]:
    """The picture under a slide's tiles.

    Args:
        tiles: The tiles.
        slide: The slide. None: the one that the feature file was made from, where it still exists.
        longest: Pixels of the picture's longer side at most.

    Returns:
        The tiles in level-0 pixels, and the picture; it is white, and its notes say why, where the
        slide is not at hand or cannot be read.

    Raises:
        ConfigError: The given slide is not the one that the features were made from.
        SlideError: The given slide cannot be opened.
    """
    found, note = (slide, "") if slide is not None else _recorded(tiles)
    if found is None:
        return tiles, _white(tiles, min(longest, LONGEST), note)
    if slide is not None:
        check_slide(tiles, slide)
    try:
        opened = open_slide(found)
        try:
            return _seen(tiles, opened, longest)
        finally:
            opened.close()
    except PathEncoderError as error:
        if slide is not None:
            raise
        return tiles, _white(tiles, longest, f"the slide is not shown: {error}")


def ground_or_white(
    tiles: Tiles, slide: Path | None, *, longest: int = LONGEST
) -> tuple[Tiles, Ground]:
    """`ground_of`, with a white picture and a note in place of an error about a given slide."""
    try:
        return ground_of(tiles, slide, longest=longest)
    except (ConfigError, SlideError, MissingExtra) as error:
        return tiles, _white(tiles, longest, f"the slide is not shown: {error}")


def check_slide(tiles: Tiles, slide: Path) -> None:
    """Refuse a slide whose content is not the one that the features were made from.

    A file of another program records no content: then only a size that it states is compared, when
    the slide is opened.

    Raises:
        ConfigError: It is another slide.
        SlideError: It cannot be read.
    """
    recorded = tiles.attributes.get("slide_hash")
    if not recorded or not slide.exists():
        return
    same = slide_stat(slide).size == int(tiles.attributes.get("slide_bytes", -1))
    if not same or identify_slide(slide).content != recorded:
        raise ConfigError(
            f"{slide} is not the slide that {tiles.file} was made from"
            f" ({tiles.slide}): its content differs"
        )


def _recorded(tiles: Tiles) -> tuple[Path | None, str]:
    """The slide that the file names, where it is still there; else why not."""
    named = str(tiles.attributes.get("slide_path") or "")
    if not named:
        return None, "the slide is not shown: the feature file does not name it"
    try:
        if not Path(named).exists():
            return None, f"the slide is not shown: {tiles.slide} is no longer where it was encoded"
        check_slide(tiles, Path(named))
    except (PathEncoderError, OSError) as error:
        return None, f"the slide is not shown: {error}"
    return Path(named), ""


def _seen(tiles: Tiles, slide: Slide, longest: int) -> tuple[Tiles, Ground]:
    """The ground of an open slide."""
    if tiles.size is not None and tiles.size != tuple(slide.size):
        raise ConfigError(
            f"{slide.path} has {slide.size[0]} x {slide.size[1]} px and {tiles.file} was made from"
            f" a slide of {tiles.size[0]} x {tiles.size[1]} px"
        )
    notes, tissue = list[str](), None
    mpp = tiles.mpp
    try:
        mpp = mpp or slide.mpp().value
        tissue = find_tissue(slide, mpp)
    except MissingMpp:
        if tiles.unit == "um":
            raise
        notes.append("no outline of the tissue: the scale of the slide is unknown")
    if tissue is not None and tiles.attributes.get("tissue") != TISSUE:
        notes.append(_OTHER_TISSUE.format(tiles.attributes.get("tissue") or "not recorded"))
    image = _thumbnail(slide, tissue, mpp, longest)
    left, top, width, height = slide.bounds
    scale = width / image.shape[1], height / image.shape[0]
    placed = tiles.in_pixels(mpp) if mpp else tiles
    return placed, Ground(image, (left, top), scale, tissue, mpp, slide.path, tuple(notes))


def _thumbnail(slide: Slide, tissue: TissueMask | None, mpp: float | None, longest: int) -> RGB:
    """The slide with a longer side of at most `longest` pixels, of what was read where it does."""
    known = None if tissue is None else tissue.picture
    if known is None or max(known.shape[:2]) < min(longest, max(slide.bounds[2:])):
        return thumbnail(slide, mpp or _ASSUMED_MPP, target_mpp=_FINEST, most=longest).image
    factor = min(1.0, longest / max(known.shape[:2]))
    size = [max(1, round(n * factor)) for n in known.shape[1::-1]]
    return np.asarray(Image.fromarray(known).resize((size[0], size[1]), Image.Resampling.BOX))


def _white(tiles: Tiles, longest: int, note: str) -> Ground:
    """A white picture of the whole slide or, where its size is unknown, around the tiles."""
    margin = _MARGIN * tiles.side
    if tiles.size is not None and tiles.unit == "px":
        origin, extent = np.zeros(2), np.array(tiles.size, np.float64)
    elif len(tiles.corners):
        origin = tiles.corners.min(axis=0) - margin
        extent = tiles.corners.max(axis=0) + tiles.side + margin - origin
    else:
        origin, extent = np.zeros(2), np.full(2, max(tiles.side, 1.0))
    scale = float(extent.max()) / longest
    width, height = (max(1, round(v / scale)) for v in extent)
    image = np.full((height, width, 3), 255, np.uint8)
    return Ground(
        image, (float(origin[0]), float(origin[1])), (scale, scale), mpp=tiles.mpp, notes=(note,)
    )
