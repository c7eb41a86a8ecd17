"""The background of a slide: empty glass, areas that were not scanned, a dark field."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pathencoder.slides.filters import (
    Map,
    Mask,
    average,
    border,
    deviation,
    dilated,
    grown,
    highest,
    lowest,
    opened,
    smooth,
)
from pathencoder.slides.reader import RGB

_WHITE = 200  # mean level from which an even area may be glass, whatever else is visible
_DARK = 40  # brightest channel below which a pixel counts as black


def even_areas(image: RGB) -> Mask:
    """Large areas of one uniform colour, as converters put around the scanned area.

    Optics and tissue leave some variation between neighbouring pixels; a fill has none. A fill
    covers at least one percent of the image, and may be white.

    Args:
        image: uint8 [h, w, 3].

    Returns:
        bool [h, w].
    """
    flat = opened(_flat(image), 1)
    codes = _codes(image)
    found = np.zeros(flat.shape, np.bool_)
    for _ in range(3):
        left = flat & ~found
        if left.mean() < 0.01:
            break
        values, counts = np.unique(codes[left], return_counts=True)
        colour = _colour(int(values[counts.argmax()]))
        near = highest(np.abs(image.astype(np.int16) - colour)) <= 2
        if (near & left).mean() < 0.01:
            break
        found |= dilated(near & left, 2) & near
    black = flat & (highest(image) < _DARK)
    if black.mean() >= 0.01:
        found |= black
    return found


def unscanned(image: RGB, even: Mask) -> Mask:
    """The areas that were not scanned: uniform, at the image's edge, and darker than the glass.

    The level of the glass is the brightest that was scanned: glass or light tissue.

    Args:
        image: uint8 [h, w, 3].
        even: Its uniform areas, bool [h, w].

    Returns:
        bool [h, w], with the pixels on the border between the two.
    """
    level = average(image)
    rest = level[~even]
    glass = float(np.percentile(rest, 95)) - 10 if rest.size else 0.0
    dark = even & (level < max(min(_WHITE, glass), _DARK))
    return dilated(grown(border(dark), dark), 1)


def is_dark_field(image: RGB, surroundings: Mask | None = None) -> bool:
    """Whether the image shows bright signal on a dark background, as in fluorescence.

    Most of such an image is dark, and the rest is dim or of one channel. A brightfield section
    cut out on black is bright: light passes through it.

    Args:
        image: uint8 [h, w, 3].
        surroundings: The areas that were not scanned, bool [h, w].
    """
    level, brightest = average(image), highest(image)
    if np.median(brightest) >= 64:
        return False
    inside = np.ones(level.shape, np.bool_) if surroundings is None else ~surroundings
    lit = inside & (brightest >= _DARK)
    if lit.mean() < 0.0005:
        return not bool((level > _WHITE).any())
    return bool(np.median(level[lit]) < 90)


def is_grey(image: RGB) -> bool:
    """Whether an image has no colour at all."""
    return bool(((highest(image) - lowest(image)) > 3).mean() < 0.001)


def glass_colour(image: RGB, where: Mask | None = None) -> Map | None:
    """The colour of empty glass.

    Glass is the brightest tone among the smooth and nearly grey pixels. Tissue that fills the
    image has such a tone too, but it is pink, or gaps in the tissue are brighter.

    Args:
        image: uint8 [h, w, 3].
        where: The pixels that count, bool [h, w]; None: all.

    Returns:
        float32 [3]; None where no glass is visible.
    """
    level = average(image)
    grey = (highest(image) - lowest(image)) < 0.08 * level
    even = deviation(smooth(level)) < 2
    glass = (level > 150) & grey & even
    if where is not None:
        glass &= where
    if glass.mean() < 0.002:
        return None
    counts = np.convolve(np.bincount(level[glass].astype(int), minlength=256), np.ones(5), "same")
    top = int(np.flatnonzero(counts > 0.3 * counts.max())[-1])
    near = glass & (np.abs(level - top) < 4)
    colour: Map = np.median(image[near], axis=0).astype(np.float32)
    return None if _is_tissue(image, level, colour, even) else colour


def _is_tissue(image: RGB, level: Map, colour: Map, even: Mask) -> bool:
    """Whether a tone that was taken for glass is pale tissue: pink, or not the brightest."""
    red, green, blue = (float(v) for v in colour)
    tone = float(colour.mean())
    pink = (min(red, blue) - green) / tone
    clefts = float(((level > tone + 6) & ~even & (lowest(image) < 252)).mean())
    return pink > 0.05 or clefts > 0.03 or (pink > 0.03 and clefts > 0.01)


def _flat(image: RGB) -> Mask:
    """Pixels whose window of five pixels varies by at most two levels in every channel."""
    most, least = image, image
    for axis in (0, 1):
        most = _over_window(most, axis, np.maximum)
        least = _over_window(least, axis, np.minimum)
    flat: Mask = highest(most - least) <= 2
    return flat


def _over_window(values: RGB, axis: int, join: Callable[[RGB, RGB], RGB]) -> RGB:
    """The extreme of five neighbours along an axis; edge pixels are repeated."""
    pad = [(2, 2) if a == axis else (0, 0) for a in range(3)]
    padded, length = np.pad(values, pad, mode="edge"), values.shape[axis]
    rows = [padded[i : i + length] if axis == 0 else padded[:, i : i + length] for i in range(5)]
    return functools.reduce(join, rows)


def _codes(image: RGB) -> NDArray[np.int64]:
    """One number for each colour: int64 [h, w]."""
    red, green, blue = (image[..., c].astype(np.int64) for c in range(3))
    return red << 16 | green << 8 | blue


def _colour(code: int) -> NDArray[np.int16]:
    return np.array([code >> 16, code >> 8 & 255, code & 255], np.int16)
