"""Pen marks and the shadows of a slide's edges.

Both are found in the optical density against the slide's own glass. Ink adds its own density to
that of the tissue under it, and has a hue that stains do not have. The limits were chosen on
pixels of 8 um of half of the slides of 50 stains, and on one slide with pen.
"""

from __future__ import annotations

import numpy as np

from pathencoder.slides.filters import (
    Map,
    Mask,
    average,
    border,
    dilated,
    grown,
    highest,
    opened,
    roughness,
    smooth,
    window_mean,
)

INKS = ("green", "blue", "red", "black")
_MOST = 0.3  # share of all that is coloured above which a hue is the stain's own
_STROKE = 1  # pixels to each side that a pen mark fills


def find_ink(density: Map, stained: Mask) -> tuple[Mask, list[str]]:
    """Find pen marks.

    Args:
        density: Optical density against the glass, float32 [h, w, 3].
        stained: Everything that differs from the glass and is no shadow, bool [h, w].

    Returns:
        The ink, bool [h, w], and the names of hues that look like ink but are too common to be
        ink: a green or blue counterstain, silver.
    """
    ink, kept = np.zeros(stained.shape, np.bool_), []
    density = smooth(density)  # tissue under a pen mark makes it grainy
    for name, (seeds, weak) in _candidates(density, stained).items():
        marks = opened(seeds, _STROKE) & seeds
        if not marks.any():
            continue
        found = grown(marks, weak)
        if _is_mark(found, seeds, average(density), stained):
            ink |= dilated(found, 2)
        else:
            kept.append(name)
    return ink, kept


def _is_mark(found: Mask, seeds: Mask, darkness: Map, stained: Mask) -> bool:
    """Whether a hue is a pen mark, not a stain.

    A mark is a small part of what is coloured, or much darker than the tissue around it, or dense
    lines on glass beside tissue.
    """
    part = float(found.sum()) / max(float(stained.sum()), 1.0)
    if part <= _MOST:
        return True
    ring = dilated(found, 8) & ~dilated(found, 4)
    tissue = ring & stained
    if tissue.sum() > 0.3 * ring.sum():
        return bool(np.median(darkness[tissue]) < 0.6 * np.median(darkness[found]))
    rest = stained & ~dilated(found, 8)
    return bool(rest.sum() > 0.1 * found.sum() and (seeds & found).sum() > 0.5 * found.sum())


def _candidates(density: Map, stained: Mask) -> dict[str, tuple[Mask, Mask]]:
    """For each hue, the pixels that are certainly ink, and those that are ink where they touch it.

    Hematoxylin, eosin, DAB and their mixtures do not absorb like this at 8 um a pixel:

    - green pen: more red than green, and much blue too;
    - blue pen: mostly red, with almost no blue or very densely;
    - red pen: green and blue equally and no red; eosin and blood absorb less blue, so only dense
      marks are found;
    - black pen: nearly all of all three.
    """
    red, green, blue = (density[..., c] for c in range(3))
    total = np.maximum(red + green + blue, 1e-3)
    of_red, of_green, of_blue = red / total, green / total, blue / total
    most, mean = highest(density), total / 3
    greenish = (of_red > of_green + 0.05) & (of_blue > 0.2)
    azure = (of_red > 0.5) & (of_blue < 0.15)
    indigo = (of_red > 0.42) & (of_blue < 0.17) & (most > 0.5)
    violet = (red > green + 0.1) & (of_blue < 0.25) & (red > 0.8)
    crimson = (of_red < 0.13) & (of_blue > 0.4)
    dark = (of_blue > 0.25) & (of_blue < 0.38) & (of_red > 0.2)
    usual = float(np.median(mean[stained])) if stained.any() else 0.0
    return {
        "green": (greenish & (most > 0.45), greenish & (most > 0.12)),
        "blue": (
            (azure & (most > 0.25)) | indigo | violet,
            (azure & (most > 0.06)) | ((red > green) & (of_blue < 0.25) & (most > 0.3)),
        ),
        "red": (crimson & (most > 0.8), (of_red < 0.15) & (of_blue > 0.34) & (most > 0.4)),
        "black": (dark & (mean > 1.0), dark & (mean > max(0.5, 1.5 * usual))),
    }


def find_shadows(colour: Map, darkness: Map, cut: float) -> Mask:
    """Find the shadows of a slide's edges: grey and smooth bands along the image's edge.

    Tissue of any stain is rough at this scale; a gradient is not. Pale tissue at low
    magnification is grey and smooth too, so a band is at most a seventh of the image deep.

    Args:
        colour: Range of the three channels' densities, float32 [h, w].
        darkness: Mean of the three, float32 [h, w].
        cut: Density from which a pixel is not glass.

    Returns:
        bool [h, w].
    """
    rough = window_mean(roughness(darkness), 5)
    even = rough < 0.008 + 0.04 * np.maximum(darkness, 0)
    shade = (darkness > 0.5 * cut) & (colour < 0.3 * darkness)
    bands = border(shade & even, max(2, min(shade.shape) // 7))
    found: Mask = dilated(grown(border(bands, 2), bands), 1) & shade
    return found
