"""Where the tissue is: a thumbnail of the slide and a mask on it, for H&E and for pale immunohistochemistry alike.

The mask asks how a pixel differs from the slide's own glass, in optical density: by colour (any stain has one, shadows and glass
edges have none), or by darkness and texture. It needs numpy and Pillow only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pathencoder.errors import SlideError
from pathencoder.slides.reader import RGB, Slide, best_level

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
Box = tuple[int, int, int, int]  # left, top, right, bottom

THUMBNAIL_MPP = 8.0
THUMBNAIL_MAX = 4096  # pixels of the longer side
DARK = "dark background, as in fluorescence: encoders here have learnt from brightfield"
ALL_TISSUE = "no empty glass found: if the slide has some, its colours are wrong"
_BLOCK = 1024  # pixels read at a time
_BITE = 128  # pixels read at a time where a block is damaged


@dataclass(frozen=True)
class TissueMask:
    """mask: [h, w], True for tissue. Mask pixel (0, 0) begins at `origin` (x, y); a pixel is `scale` level-0 pixels wide and high."""

    mask: Mask
    origin: tuple[int, int]
    scale: tuple[float, float]
    note: str = ""  # what a person should look at

    def share(self, xs: NDArray[np.float64], ys: NDArray[np.float64], side: float) -> NDArray[np.float64]:
        """Share of tissue in squares of `side` with top left corners at every (x, y): [len(ys), len(xs)], in 0..1.

        Exact for fractional positions: sums of the mask are interpolated. What lies outside the mask is no tissue.
        """
        sums = np.pad(self.mask.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
        lefts, rights = ((xs + d - self.origin[0]) / self.scale[0] for d in (0, side))
        tops, bottoms = ((ys + d - self.origin[1]) / self.scale[1] for d in (0, side))
        area = _at(sums, bottoms, rights) - _at(sums, tops, rights) - _at(sums, bottoms, lefts) + _at(sums, tops, lefts)
        share: NDArray[np.float64] = np.clip(area / (side / self.scale[0] * side / self.scale[1]), 0, 1)
        return share


def find_tissue(slide: Slide, mpp: float) -> TissueMask:
    """The tissue of a slide whose level-0 pixels are `mpp` micrometres.

    What a damaged thumbnail does not show counts as tissue: its tiles are tried, and those that fail are named. Raises SlideError where no
    part of the slide can be read.
    """
    overview = thumbnail(slide, mpp)
    dark = is_dark_field(overview.image)
    tissue = bright_on_dark(overview.image) if dark else tissue_mask(overview.image, overview.scale[0] * mpp)
    note = DARK if dark else ALL_TISSUE if tissue.mean() > 0.99 else ""
    return TissueMask(tissue | overview.unread, slide.bounds[:2], overview.scale, note)


@dataclass(frozen=True)
class Overview:
    """image: uint8 [h, w, 3]; unread: bool [h, w], where it could not be read; scale: level-0 pixels that a pixel spans in x and y."""

    image: RGB
    unread: Mask
    scale: tuple[float, float]


def thumbnail(slide: Slide, mpp: float, *, target_mpp: float = THUMBNAIL_MPP, most: int = THUMBNAIL_MAX) -> Overview:
    """The slide's bounds at about `target_mpp` micrometres per pixel, at most `most` pixels wide and high.

    Read in blocks: a slide without small levels needs no more memory. A damaged block is read again in pieces and from finer levels.
    Raises SlideError where nothing could be read.
    """
    x0, y0, width, height = slide.bounds
    wanted = max(target_mpp / mpp, max(width, height) / most, 1.0)
    size = max(1, round(width / wanted)), max(1, round(height / wanted))
    scale = (width / size[0], height / size[1])
    level = best_level(slide.downsamples, max(scale))
    canvas = _Canvas(slide, Image.new("RGB", size, (255, 255, 255)), np.zeros(size[::-1], np.bool_), (x0, y0), scale)
    unit = slide.downsamples[level] / max(scale)  # thumbnail pixels a pixel of the level
    for block in _boxes((0, 0, *size), _BLOCK * unit):
        if not canvas.read(block, level):
            for bite in _boxes(block, _BITE * unit):
                canvas.read_by_crumbs(bite, level, _BITE * unit / 4)
    if canvas.unread.all():
        raise SlideError(f"{slide.path}: no part of it can be read. Compare its size with the original, copy it again")
    return Overview(np.asarray(canvas.image), canvas.unread, scale)


@dataclass(frozen=True)
class _Canvas:
    """A thumbnail in the making."""

    slide: Slide
    image: Image.Image
    unread: Mask
    origin: tuple[int, int]
    scale: tuple[float, float]

    def read(self, box: Box, level: int) -> bool:
        """Fill a box of thumbnail pixels from one level; False where that level is damaged there."""
        left, top, right, bottom = box
        down = self.slide.downsamples[level]
        x, y = round(self.origin[0] + left * self.scale[0]), round(self.origin[1] + top * self.scale[1])
        width, height = math.ceil((right - left) * self.scale[0] / down), math.ceil((bottom - top) * self.scale[1] / down)
        try:
            region = self.slide.read(x, y, level, max(1, width), max(1, height))
        except SlideError:
            return False
        self.image.paste(Image.fromarray(region).resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        return True

    def read_by_crumbs(self, bite: Box, level: int, size: float) -> None:
        """Fill a box from the next finer level that is whole there, else bit by bit from level 0; what then fails is `unread`."""
        if any(self.read(bite, finer) for finer in range(level, -1, -1)):
            return
        for left, top, right, bottom in _boxes(bite, size):
            self.unread[top:bottom, left:right] = not self.read((left, top, right, bottom), 0)


def _boxes(whole: Box, step: float) -> list[Box]:
    """A box (left, top, right, bottom) cut into boxes of at most `step`, at least one pixel, a side."""
    left, top, right, bottom = whole
    size = max(1, int(step))
    return [(x, y, min(x + size, right), min(y + size, bottom)) for y in range(top, bottom, size) for x in range(left, right, size)]


def tissue_mask(image: RGB, mpp: float) -> Mask:
    """Tissue on a brightfield thumbnail uint8 [h, w, 3] whose pixels are `mpp` micrometres: bool [h, w].

    A pixel is tissue when it differs from the glass in colour, or in darkness with some colour or with the texture that glass lacks.
    """
    density = _smooth(-np.log10((image.astype(np.float32) + 1) / (glass_colour(image) + 1)))
    colour, darkness = np.ptp(density, axis=2), density.mean(axis=2)
    texture = _deviation(darkness)
    cut = _cut(colour, darkness, texture)
    tissue = (colour > cut) & (darkness > 0.3 * cut)
    tissue |= (darkness > cut) & (colour > 0.5 * cut) & (texture > 0.5 * cut)
    ink = image.max(axis=2) < 45  # pen and the slide's black frame: no stain is that dark in all three channels at this scale
    return _tidy(tissue & ~ink, mpp)


def is_dark_field(image: RGB) -> bool:
    """Whether the background of a thumbnail is dark, as in fluorescence: most pixels near black and next to none near white."""
    brightest = image.max(axis=2)
    return bool(np.median(brightest) < 64 and (image.min(axis=2) > 200).mean() < 0.05)


def bright_on_dark(image: RGB) -> Mask:
    """Tissue in a dark field: pixels clearly brighter than the background, uint8 [h, w, 3] -> bool [h, w]."""
    bright = _smooth(image.max(axis=2, keepdims=True).astype(np.float32))[..., 0]
    mask: Mask = bright > float(np.percentile(bright, 20)) + 16
    return mask


def glass_colour(image: RGB) -> Map:
    """The colour of empty glass, float32 [3]: the brightest mode among bright, smooth, nearly grey pixels; white where there is none.

    Tissue that fills the picture has a mode too, but a coloured or a textured one.
    """
    level = image.mean(axis=2, dtype=np.float32)
    grey = np.ptp(image, axis=2) < 0.08 * level
    smooth = _deviation(_smooth(level[..., None])[..., 0]) < 2
    glass = (level > 150) & grey & smooth
    if glass.mean() < 0.002:
        return np.full(3, 250, np.float32)
    counts = np.convolve(np.bincount(level[glass].astype(int), minlength=256), np.ones(5), "same")
    top = int(np.flatnonzero(counts > 0.3 * counts.max())[-1])
    near = glass & (np.abs(level - top) < 4)
    colour: Map = np.median(image[near], axis=0).astype(np.float32)
    return colour


def _cut(colour: Map, darkness: Map, texture: Map) -> float:
    """The colour (optical density) from which a pixel is tissue: four times what smooth glass shows, within limits."""
    glass = colour[(np.abs(darkness) < 0.015) & (texture < 0.006)]
    noise = float(np.median(glass)) if len(glass) > 100 else 0.0
    return min(max(0.014, 4 * noise), 0.04)


def _smooth(values: Map) -> Map:
    """A binomial filter of five pixels along both axes of [h, w, c]; edges are repeated."""
    for axis in (0, 1):
        for _ in range(2):
            padded = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
            before, here, after = (np.take(padded, range(i, i + values.shape[axis]), axis) for i in range(3))
            values = ((before + 2 * here + after) / 4).astype(np.float32)
    return values


def _deviation(values: Map) -> Map:
    """Standard deviation in a window of five pixels: [h, w] -> [h, w]."""
    mean = _window_mean(values, 5)
    deviation: Map = np.sqrt(np.maximum(_window_mean(values.astype(np.float64) ** 2, 5) - mean**2, 0)).astype(np.float32)
    return deviation


def _window_mean(values: NDArray[np.generic], size: int) -> NDArray[np.float64]:
    """Mean in a window of an odd number of pixels: [h, w] -> [h, w]; edges are repeated."""
    half = size // 2
    sums = np.pad(np.pad(values.astype(np.float64), half, mode="edge").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    mean: NDArray[np.float64] = (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) / size**2
    return mean


def _tidy(mask: Mask, mpp: float) -> Mask:
    """Specks off, holes filled. A pixel stays where an eighth of its surroundings (120 um) is tissue, so that nets such as lung stay and
    dust goes; then a closing of 128 um."""
    surroundings, holes = (2 * min(max(1, round(um / mpp / 2)), 10) + 1 for um in (120, 128))
    kept = mask & (_window_mean(mask, surroundings) > 0.125)
    picture = Image.fromarray(np.pad(kept, holes).astype(np.uint8) * 255)
    closed = np.asarray(picture.filter(ImageFilter.MaxFilter(holes)).filter(ImageFilter.MinFilter(holes)))
    return closed[holes:-holes, holes:-holes] > 0


def _at(sums: NDArray[np.float64], ys: NDArray[np.float64], xs: NDArray[np.float64]) -> NDArray[np.float64]:
    """A summed-area table at fractional places, clipped to its border: [len(ys), len(xs)]."""
    y, x = np.clip(ys, 0, sums.shape[0] - 1), np.clip(xs, 0, sums.shape[1] - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, sums.shape[0] - 1), np.minimum(left + 1, sums.shape[1] - 1)
    fy, fx = (y - top)[:, None], (x - left)[None]
    upper = sums[np.ix_(top, left)] * (1 - fx) + sums[np.ix_(top, right)] * fx
    lower = sums[np.ix_(bottom, left)] * (1 - fx) + sums[np.ix_(bottom, right)] * fx
    mixed: NDArray[np.float64] = upper * (1 - fy) + lower * fy
    return mixed
