"""What lies on the glass beside tissue: pen and its colour, and the shadows of the slide's edges.

Everything is asked in optical density against the slide's own glass. Ink is a second filter on
top of tissue: it adds its own density, and shows by a hue that stains do not have. The limits
were chosen on pixels of 8 um of half of the slides of 50 stains, and on one slide with pen.
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
_STROKE = 1  # pixels about a pixel that a stroke fills


def find_ink(density: Map, stained: Mask) -> tuple[Mask, list[str]]:
    """Pen marks, with the hues that look like ink but stain most of the slide.

    Args:
        density: optical density against the glass, float32 [h, w, 3].
        stained: bool [h, w], whatever differs from the glass and is no shadow.

    Returns:
        ink: bool [h, w]. kept: the names of hues that are too common to be ink: a green or blue
        counterstain, silver.
    """
    ink, kept = np.zeros(stained.shape, np.bool_), []
    density = smooth(density)  # tissue shows through strokes, grainy
    for name, (seeds, weak) in _candidates(density, stained).items():
        strokes = opened(seeds, _STROKE) & seeds
        if not strokes.any():
            continue
        found = grown(strokes, weak)
        if _is_stroke(found, seeds, average(density), stained):
            ink |= dilated(found, 2)
        else:
            kept.append(name)
    return ink, kept


def _is_stroke(found: Mask, seeds: Mask, darkness: Map, stained: Mask) -> bool:
    """Whether a hue is a mark, not a stain: a small part of what is coloured; or, where there is
    more of it, much darker than the tissue around it, or dense lines on glass beside tissue."""
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
    """Hue by hue, pixels that are surely ink and those that are ink where they touch it.

    Hematoxylin, eosin, DAB and their mixtures leave these alone at 8 um a pixel: more red than
    green taken and much blue too (green pen); red taken most and next to no blue, or as dense as
    that (blue pen); green and blue taken alike and no red (red pen: eosin and blood leave more
    blue, so only dense strokes are seen); all three taken nearly whole (black pen).
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
    """The shadows of a slide's edges: grey and smooth bands along the picture's edge: bool [h, w].

    Tissue, however grey its stain, is rough at this scale; a gradient is not. Pale tissue seen
    from far is grey and smooth too, so a band is at most a seventh of the picture deep.

    Args:
        colour: range of the three channels' density, float32 [h, w].
        darkness: mean density, float32 [h, w].
        cut: density from which a pixel is not glass.
    """
    rough = window_mean(roughness(darkness), 5)
    even = rough < 0.008 + 0.04 * np.maximum(darkness, 0)
    shade = (darkness > 0.5 * cut) & (colour < 0.3 * darkness)
    bands = border(shade & even, max(2, min(shade.shape) // 7))
    found: Mask = dilated(grown(border(bands, 2), bands), 1) & shade
    return found
