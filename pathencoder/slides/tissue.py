"""The tissue of a slide: a mask on a thumbnail, for H&E, immunohistochemistry and special stains.

A pixel is tissue where its optical density differs from that of the slide's own glass: in colour
(any stain has one, shadows and glass edges have none), or in darkness and texture. Pen, shadows
and areas that were not scanned are found first, and noted. Only numpy and Pillow are needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import SlideError
from pathencoder.mpp import check_mpp
from pathencoder.slides.filters import (
    Map,
    Mask,
    average,
    closed,
    deviation,
    highest,
    lowest,
    smooth,
    window_mean,
)
from pathencoder.slides.glass import even_areas, glass_colour, is_dark_field, is_grey, unscanned
from pathencoder.slides.ink import find_ink, find_shadows
from pathencoder.slides.overview import LEAST, TARGET_MPP, Overview, thumbnail
from pathencoder.slides.reader import RGB, Slide, open_slide

PEN, SHADOW, UNSCANNED = "pen", "shadow", "not scanned"  # what may be dropped
DARK = (
    "dark background, as in fluorescence: not used, because the encoders and the nuclei network"
    " were trained on brightfield"
)
NO_GLASS = "no empty glass in view: the whole field is taken as tissue"
GREY = (
    "a picture without colour: tissue found by darkness alone, and the encoders were trained on"
    " stains"
)
_SMALLEST = 256  # pixels of the mask's longer side, where the slide has them
_WHITE = np.full(3, 250, np.float32)


@dataclass(frozen=True)
class TissueMask:
    """The tissue of a slide as a mask.

    Attributes:
        mask: True for tissue, bool [h, w].
        origin: Where mask pixel (0, 0) begins: x, y in level-0 pixels.
        scale: Level-0 pixels per pixel of the mask, in x and y.
        notes: What was found or assumed, as sentences.
        dropped: By name (PEN, SHADOW, UNSCANNED), what is neither tissue nor glass: bool [h, w].
        picture: The same area as an image, uint8 [h', w', 3].
    """

    mask: Mask
    origin: tuple[int, int]
    scale: tuple[float, float]
    notes: tuple[str, ...] = ()
    dropped: Mapping[str, Mask] = field(default_factory=dict)
    picture: RGB | None = None

    @property
    def note(self) -> str:
        """The notes in one line."""
        return "; ".join(self.notes)

    def share(
        self, xs: NDArray[np.float64], ys: NDArray[np.float64], side: float, of: str | None = None
    ) -> NDArray[np.float64]:
        """The share of tissue in squares with their top left corners at every (x, y).

        It is exact for fractional positions: sums of the mask are interpolated. What lies outside
        the mask is not tissue.

        Args:
            xs: Left edges in level-0 pixels.
            ys: Top edges in level-0 pixels.
            side: Side of the squares in level-0 pixels.
            of: Name of a dropped mask, for its share instead of that of tissue.

        Returns:
            float64 [len(ys), len(xs)], in 0..1.
        """
        mask = self.mask if of is None else self.dropped.get(of, np.zeros_like(self.mask))
        sums = np.pad(mask.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
        lefts, rights = ((xs + d - self.origin[0]) / self.scale[0] for d in (0, side))
        tops, bottoms = ((ys + d - self.origin[1]) / self.scale[1] for d in (0, side))
        area = (
            _at(sums, bottoms, rights)
            - _at(sums, tops, rights)
            - _at(sums, bottoms, lefts)
            + _at(sums, tops, lefts)
        )
        squares = side / self.scale[0] * side / self.scale[1]
        share: NDArray[np.float64] = np.clip(area / squares, 0, 1)
        return share

    def outline(self, mpp: float) -> Mask:
        """The mask with holes and gaps of up to 64 um filled, for its outline: bool [h, w].

        Args:
            mpp: Micrometres per level-0 pixel.
        """
        radius = min(max(1, round(32 / (self.scale[0] * mpp))), 24)
        return closed(self.mask, radius)


def refuse_dark(tissue: TissueMask, path: Path) -> None:
    """Refuse a slide with a dark background, whose tissue cannot be found.

    Args:
        tissue: The result of `find_tissue`.
        path: The slide, for the message.

    Raises:
        SlideError: Its background is dark.
    """
    if DARK in tissue.notes:
        raise SlideError(f"{path}: {DARK}. Leave it out")


def find_tissue(slide: Slide | str | os.PathLike[str], mpp: float | None = None) -> TissueMask:
    """Find the tissue of a slide.

    An area that cannot be read at low magnification counts as tissue: its tiles are tried, and
    those that fail are listed. A slide with a dark background gets no tissue, and the note DARK.

    Args:
        slide: A path, or an open slide (which stays open).
        mpp: Micrometres per level-0 pixel. None: as the slide states it.

    Returns:
        The mask at about 8 um a pixel, what was dropped, and notes.

    Raises:
        SlideError: The slide cannot be opened, or no part of it can be read.
        MissingMpp: The slide does not state its scale, and none is given.
        ConfigError: The scale that is given is no scale.
    """
    if isinstance(slide, (str, os.PathLike)):
        opened = open_slide(os.fspath(slide))
        try:
            return find_tissue(opened, mpp)
        finally:
            opened.close()
    mpp = slide.mpp().value if mpp is None else check_mpp(mpp, "mpp")
    fine = thumbnail(slide, mpp, least=LEAST)
    small = fine.reduced(min(TARGET_MPP / mpp, max(slide.bounds[2:]) / _SMALLEST))
    seen = _look(fine, small, small.scale[0] * mpp)
    tissue = seen.tissue | (small.unread if DARK not in seen.notes else False)
    origin = (slide.bounds[0], slide.bounds[1])
    return TissueMask(tissue, origin, small.scale, seen.notes, seen.dropped, fine.image)


def tissue_mask(image: RGB, mpp: float) -> Mask:
    """The tissue on a brightfield image.

    Args:
        image: uint8 [h, w, 3].
        mpp: Micrometres per pixel.

    Returns:
        bool [h, w].
    """
    whole = Overview(image, np.zeros(image.shape[:2], np.bool_), (1.0, 1.0))
    return _look(whole, whole, mpp).tissue


@dataclass(frozen=True)
class _Look:
    """The parts of a thumbnail, masks bool [h, w], and the notes on them."""

    tissue: Mask
    dropped: dict[str, Mask]
    notes: tuple[str, ...]


def _look(fine: Overview, small: Overview, mpp: float) -> _Look:
    """Separate tissue, glass and the rest; the colour of the glass comes from the finer picture."""
    image = small.image
    empty = even_areas(image)
    beyond = unscanned(image, empty)
    nothing = np.zeros(beyond.shape, np.bool_)
    if is_dark_field(image, beyond):
        return _Look(nothing, {}, (DARK,))
    glass = _glass(fine, image, ~(empty | beyond | small.unread))
    seen = _contrast(image, _WHITE if glass is None else glass, beyond)
    grey = is_grey(image)
    shadow, ink, kept = nothing, nothing, list[str]()
    if not grey:
        if glass is not None:
            shadow = find_shadows(seen.colour, seen.darkness, seen.cut) & ~beyond
        ink, kept = find_ink(seen.density, seen.stained & ~(shadow | beyond))
    if glass is None:
        tissue = ~(empty | beyond | ink)
    else:
        unlike = seen.dark if grey else seen.unlike_glass
        tissue = _tidy(unlike & ~(ink | shadow | beyond), seen.stained, mpp) & ~(ink | beyond)
    dropped = {PEN: ink, SHADOW: shadow & ~ink, UNSCANNED: beyond}
    dropped = {name: mask for name, mask in dropped.items() if mask.any()}
    return _Look(
        tissue,
        dropped,
        _notes(dropped, kept, glass=glass is not None, grey=grey and bool(seen.stained.any())),
    )


def _glass(fine: Overview, image: RGB, scanned: Mask) -> Map | None:
    """The colour of the glass at the finest scale, or that of uniform white areas."""
    same = fine.image is image
    inside = scanned if same else ~(even_areas(fine.image) | fine.unread)
    for picture, where in ((fine.image, inside), (image, scanned), (fine.image, ~fine.unread)):
        found = glass_colour(picture, where)
        if found is not None:
            return found
    return None


@dataclass(frozen=True)
class _Contrast:
    """The optical density of a thumbnail against the glass.

    Attributes:
        density: float32 [h, w, 3].
        colour: Range of the three channels, float32 [h, w].
        darkness: Mean of the three channels, float32 [h, w].
        cut: Density from which a pixel is not glass.
    """

    density: Map
    colour: Map
    darkness: Map
    cut: float

    @property
    def stained(self) -> Mask:
        """Everything that is not glass."""
        return (self.darkness > self.cut) | (self.colour > self.cut)

    @property
    def unlike_glass(self) -> Mask:
        """Pixels that differ in colour, or in darkness with some colour and texture."""
        coloured = (self.colour > self.cut) & (self.darkness > 0.3 * self.cut)
        dark = (self.darkness > self.cut) & (self.colour > 0.5 * self.cut)
        return coloured | (dark & (deviation(self.darkness) > 0.5 * self.cut))

    @property
    def dark(self) -> Mask:
        """Pixels that differ in darkness, whatever their colour."""
        return self.darkness > max(2 * self.cut, 0.04)


def _contrast(image: RGB, glass: Map, beyond: Mask) -> _Contrast:
    """The density against the glass; 0 where nothing was scanned."""
    density: Map = -np.log10((image.astype(np.float32) + 1) / (glass + 1))
    density[beyond] = 0
    density = smooth(density)
    colour, darkness = highest(density) - lowest(density), average(density)
    return _Contrast(density, colour, darkness, _cut(colour, darkness))


def _cut(colour: Map, darkness: Map) -> float:
    """The cut: four times the colour of smooth glass, within limits."""
    glass = colour[(np.abs(darkness) < 0.015) & (deviation(darkness) < 0.006)]
    noise = float(np.median(glass)) if len(glass) > 100 else 0.0
    return min(max(0.014, 4 * noise), 0.04)


def _tidy(mask: Mask, stained: Mask, mpp: float) -> Mask:
    """Remove specks and fill small holes.

    A pixel is kept where an eighth of its surroundings (120 um) is tissue: this keeps thin
    structures such as lung and removes dust. Holes of up to 96 um are filled where they are darker
    than glass: pale, grey tissue. Larger holes, and glass, stay holes: a tile of glass is not a
    tile of tissue.
    """
    around = 2 * min(max(1, round(60 / mpp)), 10) + 1
    kept = mask & (window_mean(mask, around) > 0.125)
    kept |= stained & closed(kept, min(max(1, round(48 / mpp)), 8))
    return closed(kept, min(max(1, round(8 / mpp)), 4))


def _notes(
    dropped: dict[str, Mask], kept: list[str], *, glass: bool, grey: bool
) -> tuple[str, ...]:
    notes = [] if glass else [NO_GLASS]
    if grey:
        notes.append(GREY)
    for name, least, text in (
        (PEN, 0.0005, "pen on {} of the slide is left out"),
        (SHADOW, 0.02, "grey bands at the edges, {} of the slide, are left out as shadow"),
    ):
        share = float(dropped[name].mean()) if name in dropped else 0.0
        if share > least:
            notes.append(text.format(f"{100 * share:.1f} %"))
    if kept:
        hues = " and ".join(kept)
        notes.append(f"{hues} as dense as pen, but on much of the tissue: taken for the stain")
    return tuple(notes)


def _at(
    sums: NDArray[np.float64], ys: NDArray[np.float64], xs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A summed-area table at fractional positions, clipped to its border: [len(ys), len(xs)]."""
    y, x = np.clip(ys, 0, sums.shape[0] - 1), np.clip(xs, 0, sums.shape[1] - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom = np.minimum(top + 1, sums.shape[0] - 1)
    right = np.minimum(left + 1, sums.shape[1] - 1)
    fy, fx = (y - top)[:, None], (x - left)[None]
    upper = sums[np.ix_(top, left)] * (1 - fx) + sums[np.ix_(top, right)] * fx
    lower = sums[np.ix_(bottom, left)] * (1 - fx) + sums[np.ix_(bottom, right)] * fx
    mixed: NDArray[np.float64] = upper * (1 - fy) + lower * fy
    return mixed
