"""One slide to one feature file: tissue, grid, tiles, embeddings.

A run that stops is resumed by the next one. A tile that cannot be read is listed; the others are
embedded.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import SlideError
from pathencoder.features import finished, layouts
from pathencoder.features.finished import ANEW, check_provenance
from pathencoder.features.identity import (
    Origin,
    SlideIdentity,
    identify_slide,
    place_of,
    slide_stat,
)
from pathencoder.features.job import Job, Outcome, Progress, silent
from pathencoder.features.plan import SlidePlan, place_of_tiles, plan_slide, scale_of
from pathencoder.features.provenance import Provenance, Settings, device_used, slide_provenance
from pathencoder.features.store import Content, Failure
from pathencoder.files import Mismatch, make_folder
from pathencoder.slides.grid import Grid, read_tile
from pathencoder.slides.mpp import Mpp
from pathencoder.slides.overlay import write_overlay
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.slides.tissue_file import write_tissue
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

OnNotes = Callable[[Sequence[str]], None]


def slide_to_file(
    encoder: Encoder,
    source: Path,
    file: Path,
    settings: Settings,
    *,
    picture: Path | None = None,
    outlines: Path | None = None,
    progress: Progress = silent,
    on_notes: OnNotes = lambda _: None,
    origin: Origin | None = None,
) -> Outcome:
    """Embed the tissue tiles of one slide into a feature file; resume an earlier run.

    `pathencoder.encode_slide` and `pathencoder encode` both call it.

    Args:
        encoder: The encoder.
        source: The slide.
        file: The feature file.
        settings: How to encode.
        picture: A .jpg or .png of the tissue and the tiles, drawn where it does not exist.
        outlines: A .geojson of the tissue, written where it does not exist.
        progress: Called with (done, total) in tiles.
        on_notes: Called once with the notes on the slide's scale and pixels, before any tile is
            embedded; not for a slide that is done.
        origin: Where a remote slide is from; `source` is its copy here.

    Returns:
        The status, the file, the number of rows, the tiles that failed (also listed in the file)
        and all notes. A slide without tissue gives a file without rows.

    Raises:
        SlideError: The slide, or every tile of it, cannot be read; or its background is dark, as in
            fluorescence.
        MissingMpp: The slide does not say its scale.
        Mismatch: The file is of another slide or of other settings, or it is damaged.
        Busy: Another process is writing the file.
        StoreError: The file cannot be written.
        ConfigError: The settings do not fit the encoder.
    """
    started = time.monotonic()
    provenance = slide_provenance(encoder, settings)
    before = done_before(source, file, provenance, settings, origin)
    if before is not None and all(f is None or f.exists() for f in (picture, outlines)):
        before.picture = picture
        return before
    slide = open_slide(source)
    try:
        scale = scale_of(encoder.spec, slide, settings)
        if before is None:
            on_notes(scale.notes)
        plan = plan_slide(encoder.spec, slide, scale, settings)
        outcome = before or _encode(
            encoder, slide, plan, file, provenance, settings, progress, origin
        )
        if outlines is not None:
            write_tissue(plan.tissue, make_folder(outlines.parent) / outlines.name)
        if picture is not None:
            make_folder(picture.parent)
            outcome.picture = write_overlay(
                plan.tissue, plan.grid, picture, title=printable(source.name)
            )
    finally:
        slide.close()
    outcome.source, outcome.seconds = source, time.monotonic() - started
    return outcome


def done_before(
    source: Path,
    file: Path,
    provenance: Provenance,
    settings: Settings,
    origin: Origin | None = None,
) -> Outcome | None:
    """The outcome of an earlier run that made this file from this slide.

    Returns:
        None where the file does not exist or is to be made anew.

    Raises:
        Mismatch: The file is of another slide, of other settings, or damaged.
    """
    if settings.overwrite or not file.exists():
        return None
    check_provenance(file, provenance, settings.layout)
    found = finished.read_facts(file)
    notes = _check_slide(source, found.slide, file, origin)
    if settings.layout == "clam" and not layouts.tensor_path(file).exists():
        return None  # the second of its two files is missing
    return Outcome(
        source, "before", file, found.count, 0, 0.0, found.failures, [*notes, *found.notes]
    )


def remote_done_before(
    encoder: Encoder, origin: Origin, file: Path, settings: Settings
) -> Outcome | None:
    """As `done_before`, of a remote slide that was not downloaded.

    Returns:
        None also where the file was made from another version or another place: the content
        decides.

    Raises:
        Mismatch: The file is of other settings, or damaged.
        ConfigError: The settings do not fit the encoder.
    """
    if settings.overwrite or not file.exists():
        return None
    provenance = slide_provenance(encoder, settings)
    check_provenance(file, provenance, settings.layout)
    made_from = finished.read_facts(file).slide
    if (made_from.path, made_from.stat) != (origin.url, origin.stat):
        return None
    return done_before(file, file, provenance, settings, origin)


def _check_slide(
    source: Path, made_from: SlideIdentity, file: Path, origin: Origin | None
) -> list[str]:
    """A note where a file was made from another path with the same content.

    Raises Mismatch where the content differs.
    """
    place, stat = (origin.url, origin.stat) if origin else (place_of(source), slide_stat(source))
    if stat.size < 0:
        raise SlideError(f"{source}: no such file. Check the path")
    if (place, stat) == (made_from.path, made_from.stat):
        return []
    same = stat.size == made_from.stat.size and identify_slide(source).content == made_from.content
    if not same and place == made_from.path:
        raise Mismatch(f"{file} was made from {place} before that file changed. {ANEW}")
    if not same:
        raise Mismatch(
            f"{file} was made from {made_from.path}, not from {place}, whose content differs:"
            f" nothing is overwritten. {ANEW}"
        )
    if place == made_from.path:
        return []
    return [f"made from {made_from.path}, whose content is the same"]


def _encode(
    encoder: Encoder,
    slide: Slide,
    plan: SlidePlan,
    file: Path,
    provenance: Provenance,
    settings: Settings,
    progress: Progress,
    origin: Origin | None,
) -> Outcome:
    grid, notes = plan.grid, plan.notes
    facts = {
        **_facts(slide, plan.scale, origin),
        "device": device_used(encoder),
        "notes": "\n".join(notes),
    }
    header = {
        **provenance.settings(),
        "slide_bytes": facts["slide_bytes"],
        "slide_hash": facts["slide_hash"],
    }
    with Job(
        _at_scale(encoder, grid.target_mpp),
        file,
        settings,
        header,
        progress,
        facts={"source_path": facts["slide_path"]},
    ) as job:
        failures = _embed(encoder, slide, grid, job)
        kept = np.array([_tile_id((x, y)) in job.journal for x, y in grid.coords.tolist()], bool)
        place = place_of_tiles(slide, grid, kept)
        content = Content(provenance, failures, facts, place=place, layout=settings.layout)
        new = job.finish(content, [_tile_id((x, y)) for x, y in place.coords.tolist()])
    return Outcome(
        slide.path,
        "done" if len(grid.coords) else "empty",
        file,
        rows=int(kept.sum()),
        new=new,
        failures=failures,
        notes=notes,
    )


def _embed(encoder: Encoder, slide: Slide, grid: Grid, job: Job) -> list[Failure]:
    tiles = [(x, y) for x, y in grid.coords.tolist()]
    failed = job.fill(
        [at for at in tiles if _tile_id(at) not in job.journal],
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
    """The same encoder with the scale of the tiles in its spec, so that they are not resized.

    The transform of an encoder without a scale would resize and crop tiles that the grid has
    read to measure.
    """
    same = copy.copy(encoder)  # shares the network, whose modes stay as they are
    same.spec = dataclasses.replace(encoder.spec, mpp=mpp)
    return same


def _facts(slide: Slide, scale: Mpp, origin: Origin | None) -> dict[str, Any]:
    return {
        "slide": printable(slide.path.name),
        **finished.slide_facts(identify_slide(slide.path, origin)),
        "slide_mpp_source": scale.source,
        "vendor": slide.vendor,
        "reader": slide.reader,
    }


def _refuse_if_all_failed(slide: Slide, tiles: int, failures: Sequence[Failure]) -> None:
    if tiles and len(failures) == tiles:
        raise SlideError(
            f"{slide.path}: none of its {tiles} tiles can be read, the first: {failures[0].reason}"
        )


def _tile_id(at: tuple[int, int]) -> int:
    """64 bits of a tile's corner: rows are found again where the tissue rules have changed."""
    return (at[0] & 0xFFFFFFFF) << 32 | (at[1] & 0xFFFFFFFF)
