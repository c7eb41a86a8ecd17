"""The tiles of a slide, before any is read: scale, tissue, grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.features.layouts import Place
from pathencoder.features.provenance import Settings, slide_target
from pathencoder.slides.coords_file import covered, given_grid, read_coords
from pathencoder.slides.grid import Grid, plan_grid
from pathencoder.slides.mpp import Mpp, scale_notes
from pathencoder.slides.reader import Slide
from pathencoder.slides.tissue import TissueMask, find_tissue, refuse_dark
from pathencoder.slides.tissue_file import drawn_tissue, read_outlines
from pathencoder.spec import EncoderSpec
from pathencoder.walk import printable


@dataclass(frozen=True)
class SlideScale:
    """The scale of a slide, the one its tiles are read at, and notes on both and on the pixels."""

    slide: Mpp
    target: float
    notes: list[str]


@dataclass(frozen=True)
class SlidePlan:
    """The tiles of a slide, and the notes for the user."""

    scale: Mpp
    tissue: TissueMask
    grid: Grid
    notes: list[str]


def scale_of(spec: EncoderSpec, slide: Slide, settings: Settings) -> SlideScale:
    """The scale of a slide, and the one at which an encoder reads it.

    Raises:
        MissingMpp: The slide does not say its scale, and the settings do not.
        ConfigError: Neither the encoder nor the settings say at what scale to read it.
        SlideError: The file of given coordinates cannot be read.
    """
    found = slide.mpp(settings.mpp)
    if settings.coords is not None:
        target = read_coords(settings.coords).side / spec.input_size * found.value
    else:
        target = slide_target(spec, settings)
    notes = scale_notes(found.value, target, spec.mpp)
    return SlideScale(found, target, [*slide.notes, *found.notes, *notes])


def plan_slide(
    spec: EncoderSpec,
    slide: Slide,
    scale: SlideScale,
    settings: Settings,
    tissue: TissueMask | None = None,
) -> SlidePlan:
    """The tiles of a slide: on a grid over its tissue, over drawn areas, or at given coordinates.

    Args:
        spec: Of the encoder: the size of its tiles.
        slide: An open slide.
        scale: Of the slide and of the tiles.
        settings: How to encode.
        tissue: The slide's tissue, where a plan of another encoder has found it already.

    Raises:
        SlideError: No part of the slide can be read, its background is dark, or a given file is
            not of this slide.
        ConfigError: The overlap leaves no step.
    """
    if settings.coords is not None:
        return _given(spec, slide, scale, settings.coords)
    if tissue is None:
        tissue = _tissue(slide, scale.slide.value, settings.tissue)
    grid = plan_grid(
        tissue,
        slide.bounds,
        mpp=scale.slide.value,
        target_mpp=scale.target,
        tile_px=spec.input_size,
        overlap_px=settings.overlap_px,
        min_tissue=settings.min_tissue,
    )
    return SlidePlan(scale.slide, tissue, grid, [*scale.notes, *tissue.notes, *grid.notes])


def _given(spec: EncoderSpec, slide: Slide, scale: SlideScale, file: Path) -> SlidePlan:
    """The tiles of a file of coordinates; their places are shown as the tissue."""
    given = read_coords(file)
    grid = given_grid(given, slide.bounds, mpp=scale.slide.value, tile_px=spec.input_size)
    return SlidePlan(scale.slide, covered(slide, grid), grid, [*scale.notes, given.note])


def _tissue(slide: Slide, mpp: float, drawn: Path | None) -> TissueMask:
    """The tissue that is found, or the areas that were drawn."""
    found = find_tissue(slide, mpp)
    if drawn is not None:
        return drawn_tissue(found, read_outlines(drawn))
    refuse_dark(found, slide.path)
    return found


def place_of_tiles(slide: Slide, grid: Grid, kept: NDArray[np.bool_] | None = None) -> Place:
    """The positions of the tiles of a grid; of those in `kept` [N], where it is given."""
    return Place(
        slide=printable(slide.path.name),
        coords=grid.coords if kept is None else grid.coords[kept],
        mpp=grid.mpp,
        target_mpp=grid.target_mpp,
        side=grid.side,
        tile_px=grid.tile_px,
        overlap_px=round(grid.tile_px * (1 - grid.stride / grid.side)),
        size=slide.size,
        origin=slide.bounds[:2],
    )
