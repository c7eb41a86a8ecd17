"""A small picture of a whole slide, read in blocks; damaged areas are marked as unread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.errors import SlideError
from pathencoder.slides.reader import RGB, Slide, best_level

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # left, top, right, bottom

TARGET_MPP = 8.0
LEAST, MOST = 1024, 4096  # pixels of the longer side
_BLOCK = 1024  # pixels read at a time
_PIECE = 128  # pixels read at a time where a block is damaged


@dataclass(frozen=True)
class Overview:
    """A small picture of a slide's scanned area.

    Attributes:
        image: uint8 [h, w, 3].
        unread: The pixels that could not be read, bool [h, w].
        scale: Level-0 pixels per pixel of the picture, in x and y.
    """

    image: RGB
    unread: Mask
    scale: tuple[float, float]

    def reduced(self, wanted: float) -> Overview:
        """The picture at `wanted` level-0 pixels per pixel, averaged; never enlarged."""
        factor = max(1.0, wanted / max(self.scale))
        height, width = self.unread.shape
        size = max(1, round(width / factor)), max(1, round(height / factor))
        if size == (width, height):
            return self
        box = Image.Resampling.BOX
        image = np.asarray(Image.fromarray(self.image).resize(size, box))
        unread = np.asarray(Image.fromarray(self.unread.astype(np.uint8) * 255).resize(size, box))
        scale = self.scale[0] * width / size[0], self.scale[1] * height / size[1]
        return Overview(image, unread > 127, scale)


def thumbnail(
    slide: Slide,
    mpp: float,
    *,
    target_mpp: float = TARGET_MPP,
    least: int = 1,
    most: int = MOST,
) -> Overview:
    """A slide's scanned area at about `target_mpp` micrometres per pixel.

    It is read in blocks: a slide without small levels needs no more memory. A damaged block is
    read again in pieces and from other levels.

    Args:
        slide: An open slide.
        mpp: Micrometres per level-0 pixel.
        target_mpp: Micrometres per pixel of the picture.
        least: The least number of pixels of the longer side, where the slide has that many.
        most: The greatest number of pixels of the longer side.

    Returns:
        The picture, the pixels that could not be read, and the scale.

    Raises:
        SlideError: Nothing could be read.
    """
    x0, y0, width, height = slide.bounds
    longer = max(width, height)
    wanted = max(min(target_mpp / mpp, longer / least), longer / most, 1.0)
    size = max(1, round(width / wanted)), max(1, round(height / wanted))
    scale = (width / size[0], height / size[1])
    level = best_level(slide.downsamples, max(scale))
    unread = np.zeros(size[::-1], np.bool_)
    canvas = _Canvas(slide, Image.new("RGB", size, (255, 255, 255)), unread, (x0, y0), scale)
    unit = slide.downsamples[level] / max(scale)  # thumbnail pixels a pixel of the level
    for block in _boxes((0, 0, *size), _BLOCK * unit):
        if not canvas.read(block, level):
            for piece in _boxes(block, _PIECE * unit):
                canvas.read_in_pieces(piece, level, _PIECE * unit / 4)
    if canvas.unread.all():
        raise SlideError(
            f"{slide.path}: no part of it can be read. Compare its size with the original, copy it"
            " again"
        )
    return Overview(np.asarray(canvas.image), canvas.unread, scale)


@dataclass(frozen=True)
class _Canvas:
    """A thumbnail that is being filled."""

    slide: Slide
    image: Image.Image
    unread: Mask
    origin: tuple[int, int]
    scale: tuple[float, float]

    def read(self, box: Box, level: int) -> bool:
        """Fill a box of thumbnail pixels from one level; False where that level is damaged."""
        left, top, right, bottom = box
        down = self.slide.downsamples[level]
        x = round(self.origin[0] + left * self.scale[0])
        y = round(self.origin[1] + top * self.scale[1])
        width = math.ceil((right - left) * self.scale[0] / down)
        height = math.ceil((bottom - top) * self.scale[1] / down)
        try:
            region = self.slide.read(x, y, level, max(1, width), max(1, height))
        except SlideError:
            return False
        size = (right - left, bottom - top)
        small = Image.fromarray(region).resize(size, Image.Resampling.BOX)
        self.image.paste(small, (left, top))
        return True

    def read_in_pieces(self, piece: Box, level: int, size: float) -> None:
        """Fill a box where its level is damaged; what cannot be read at all is `unread`.

        The next finer level that is undamaged there is read; else smaller pieces of level 0 or,
        enlarged, of coarser levels.
        """
        if any(self.read(piece, finer) for finer in range(level, -1, -1)):
            return
        others = (0, *range(level + 1, len(self.slide.downsamples)))
        for box in _boxes(piece, size):
            left, top, right, bottom = box
            self.unread[top:bottom, left:right] = not any(self.read(box, other) for other in others)


def _boxes(whole: Box, step: float) -> list[Box]:
    """A box cut into boxes with sides of at most `step` and at least one pixel."""
    left, top, right, bottom = whole
    size = max(1, int(step))
    return [
        (x, y, min(x + size, right), min(y + size, bottom))
        for y in range(top, bottom, size)
        for x in range(left, right, size)
    ]
