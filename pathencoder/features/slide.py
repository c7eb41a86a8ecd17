"""A slide to a feature file: tissue, grid, tiles, embeddings.

What is done stays done, and a bad tile never costs a good one.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import SlideError
from pathencoder.features import layouts, store
from pathencoder.features.identity import SlideIdentity, identify_slide, place_of, slide_stat
from pathencoder.features.job import Outcome, Progress, Work, check_recipe, silent
from pathencoder.features.provenance import Recipe, Settings, device_used, slide_recipe
from pathencoder.features.store import Content, Failure
from pathencoder.files import Mismatch, make_folder
from pathencoder.slides.grid import Grid, plan_grid, read_tile
from pathencoder.slides.mpp import Mpp, scale_notes
from pathencoder.slides.overlay import write_overlay
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.slides.tissue import TissueMask, find_tissue, refuse_dark
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def encode_slide(
    encoder: Encoder,
    source: Path,
    file: Path,
    settings: Settings,
    *,
    picture: Path | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Embed the tissue tiles of one slide into a feature file; go on where an earlier run stopped.

    Args:
        encoder: The encoder.
        source: The slide.
        file: The feature file.
        settings: How to encode.
        picture: A .jpg or .png of the tissue and the tiles, made where it is not there yet.
        progress: Called with (done, total).

    Returns:
        What became of it. Tiles that cannot be read are listed in it and in the file; a slide
        without tissue gives a file of no rows.

    Raises:
        SlideError: The slide, or every tile of it, cannot be read; or its background is dark, as in
            fluorescence. MissingMpp: its scale is unknown.
        Mismatch: The file is of another slide, of other settings, or damaged.
        StoreError: The file cannot be written.
        ConfigError: The settings do not fit the encoder.
    """
    started = time.monotonic()
    recipe = slide_recipe(encoder, settings)
    before = done_before(source, file, recipe, settings)
    if before is not None and (picture is None or picture.exists()):
        before.picture = picture
        return before
    slide = open_slide(source)
    try:
        plan = _plan(encoder, slide, recipe, settings)
        outcome = before or _encode(encoder, slide, plan, file, recipe, settings, progress)
        if picture is not None:
            make_folder(picture.parent)
            outcome.picture = write_overlay(
                plan.tissue, plan.grid, picture, title=printable(source.name)
            )
    finally:
        slide.close()
    outcome.source, outcome.seconds = source, time.monotonic() - started
    return outcome


def done_before(source: Path, file: Path, recipe: Recipe, settings: Settings) -> Outcome | None:
    """The outcome of an earlier run that made this file from this slide.

    None where there is no file, or it is to be made anew.

    Raises Mismatch, a StoreError, where the file is of another slide or of other settings.
    """
    if (
        settings.overwrite
        or not file.exists()
        or (settings.layout == "clam" and not layouts.tensor_path(file).exists())
    ):
        return None
    check_recipe(file, recipe)
    found = store.read_facts(file)
    if found.layout != settings.layout:
        raise Mismatch(
            f"{file} has the layout {found.layout}, not {settings.layout}. Choose another --out, or"
            " --overwrite"
        )
    notes = _check_slide(source, found.slide, file)
    return Outcome(
        source, "before", file, found.count, 0, 0.0, found.failures, [*notes, *found.notes]
    )


def _check_slide(source: Path, made_from: SlideIdentity, file: Path) -> list[str]:
    """A note where a file was made from another path with the same content.

    Raises Mismatch where the content differs.
    """
    place, stat = place_of(source), slide_stat(source)
    if (place, stat) == (made_from.path, made_from.stat):
        return []
    same = stat.size == made_from.stat.size and identify_slide(source).content == made_from.content
    if not same and place == made_from.path:
        raise Mismatch(
            f"{file} was made from {place} as it was before it changed ({made_from.stat.size:,}"
            f" bytes there, {stat.size:,} now). Choose another --out, or --overwrite"
        )
    if not same:
        raise Mismatch(
            f"{file} was made from {made_from.path}, not from {place}, whose content differs:"
            " nothing is overwritten. Choose another --out, or --overwrite"
        )
    return (
        []
        if place == made_from.path
        else [f"made from {made_from.path}, whose content is the same"]
    )


@dataclass(frozen=True)
class _Plan:
    """What of a slide is read, and what a user should know of the choice."""

    scale: Mpp
    tissue: TissueMask
    grid: Grid
    notes: list[str]


def _plan(encoder: Encoder, slide: Slide, recipe: Recipe, settings: Settings) -> _Plan:
    scale = slide.mpp(settings.mpp)
    tissue = find_tissue(slide, scale.value)
    refuse_dark(tissue, slide.path)
    grid = plan_grid(
        tissue,
        slide.bounds,
        mpp=scale.value,
        target_mpp=recipe.target_mpp or scale.value,
        tile_px=encoder.spec.input_size,
        overlap_px=settings.overlap_px,
        min_tissue=settings.min_tissue,
    )
    of_scale = scale_notes(scale.value, grid.target_mpp, encoder.spec.mpp)
    return _Plan(
        scale, tissue, grid, [*slide.notes, *scale.notes, *of_scale, *tissue.notes, *grid.notes]
    )


def _encode(
    encoder: Encoder,
    slide: Slide,
    plan: _Plan,
    file: Path,
    recipe: Recipe,
    settings: Settings,
    progress: Progress,
) -> Outcome:
    grid, notes = plan.grid, plan.notes
    facts = {**_facts(slide, plan.scale), "device": device_used(encoder), "notes": "\n".join(notes)}
    header = {
        **recipe.settings(),
        "slide_bytes": facts["slide_bytes"],
        "slide_hash": facts["slide_hash"],
    }
    with Work(
        _at_scale(encoder, grid.target_mpp),
        file,
        settings,
        header,
        progress,
        facts={"source_path": facts["slide_path"]},
    ) as work:
        failures = _embed(encoder, slide, grid, work)
        kept = np.array([_tile_id((x, y)) in work.journal for x, y in grid.coords.tolist()], bool)
        place = layouts.Place(
            printable(slide.path.name),
            grid.coords[kept],
            grid.mpp,
            grid.target_mpp,
            grid.side,
            grid.tile_px,
            settings.overlap_px,
            slide.size,
            slide.bounds[:2],
        )
        new = work.finish(
            Content(recipe, failures, facts, place=place, layout=settings.layout),
            [_tile_id((x, y)) for x, y in place.coords.tolist()],
        )
    return Outcome(
        slide.path,
        "done" if len(grid.coords) else "empty",
        file,
        int(kept.sum()),
        new,
        0.0,
        failures,
        notes,
    )


def _embed(encoder: Encoder, slide: Slide, grid: Grid, work: Work) -> list[Failure]:
    tiles = [(x, y) for x, y in grid.coords.tolist()]
    failed = work.fill(
        [at for at in tiles if _tile_id(at) not in work.journal],
        lambda at: read_tile(slide, grid, *at, interpolation=encoder.spec.interpolation),
        _tile_id,
        total=len(tiles),
        mpp=grid.target_mpp,
    )
    failures = [
        Failure(f"{x},{y}", str(error).removeprefix(f"{slide.path}: "), type(error).__name__)
        for (x, y), error in failed
    ]
    _refuse_if_all_failed(slide, len(tiles), failures)
    return failures


def _at_scale(encoder: Encoder, mpp: float) -> Encoder:
    """The same encoder as one of this scale, which leaves a tile of its input size at this scale as it is.

    Without a scale, its transform would resize and crop the tiles that the grid has read to measure.
    """
    same = copy.copy(encoder)  # shares the network, whose modes stay as they are
    same.spec = dataclasses.replace(encoder.spec, mpp=mpp)
    return same


def _facts(slide: Slide, scale: Mpp) -> dict[str, Any]:
    known_by = store.slide_facts(identify_slide(slide.path))
    return {
        "slide": printable(slide.path.name),
        **known_by,
        "slide_mpp_source": scale.source,
        "vendor": slide.vendor,
    }


def _refuse_if_all_failed(slide: Slide, tiles: int, failures: Sequence[Failure]) -> None:
    if tiles and len(failures) == tiles:
        raise SlideError(
            f"{slide.path}: none of its {tiles} tiles can be read, the first: {failures[0].reason}"
        )


def _tile_id(at: tuple[int, int]) -> int:
    """64 bits of a tile's corner, so that work goes on with the right tiles even where the tissue rules have changed."""
    return (at[0] & 0xFFFFFFFF) << 32 | (at[1] & 0xFFFFFFFF)
