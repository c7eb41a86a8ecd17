"""The share of each encoder of one slide: a journal of rows, then a feature file."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import SlideError
from pathencoder.features.before import done_before
from pathencoder.features.continued import continued
from pathencoder.features.identity import Origin
from pathencoder.features.job import Job, Outcome, Progress, fill_together
from pathencoder.features.plan import SlidePlan, place_of_tiles
from pathencoder.features.provenance import Provenance, Settings, device_used
from pathencoder.features.store import Content, Failure
from pathencoder.features.tile_quality import Tiles, complete, quality_columns, tile_id
from pathencoder.files import Mismatch
from pathencoder.locks import Busy
from pathencoder.pace import Pace
from pathencoder.slides.quality import TAG_BYTES
from pathencoder.slides.reader import Slide
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


@dataclass
class Part:
    """One encoder's share of a slide; `result` is its outcome, or the error that ended it."""

    file: Path
    provenance: Provenance | None = None
    result: Outcome | Exception | None = None
    plan: SlidePlan | None = None

    @property
    def known_provenance(self) -> Provenance:
        """The provenance, of a part that was not refused."""
        assert self.provenance is not None
        return self.provenance

    @property
    def known_plan(self) -> SlidePlan:
        """The plan, of a part that is to be done."""
        assert self.plan is not None
        return self.plan


def encode_parts(
    group: Sequence[tuple[Encoder, Part]],
    slide: Slide,
    settings: Settings,
    origin: Origin | None,
    identity: Mapping[str, Any],
    progress: Progress,
    pace: Pace,
) -> None:
    """Encode the tiles of one grid for the encoders that share it, and write their files.

    Args:
        group: The encoders and their shares, whose results are set.
        slide: The open slide.
        settings: How to encode.
        origin: Where a remote slide is from.
        identity: Of the slide, as `finished.slide_facts` gives it.
        progress: Called with (done, total) in tiles.
        pace: Where the times are counted.

    Raises:
        PathEncoderError: The error concerns all files.
    """
    with contextlib.ExitStack() as stack:
        jobs: list[tuple[Part, Job]] = []
        for encoder, part in group:
            with _own_error(part):
                job = stack.enter_context(
                    _open_job(encoder, part, slide, settings, identity, progress)
                )
                # another process may have made it since the slide was prepared; now it is locked
                part.result = done_before(
                    slide.path, part.file, part.known_provenance, settings, origin
                )
                if part.result is None:
                    jobs.append((part, job))
        if not jobs:
            return
        grid = jobs[0][0].known_plan.grid
        tiles = Tiles(slide, grid, group[0][0].spec.interpolation, measure=settings.qc)
        for part, job in jobs:
            if settings.qc and not settings.overwrite:
                with _own_error(part):
                    part.known_plan.notes.extend(complete(part.file, job, tiles))
        jobs = [(part, job) for part, job in jobs if part.result is None]
        if not jobs:
            return
        failures = _embed(tiles, [job for _, job in jobs], pace)
        for part, job in jobs:
            with _own_error(part):
                part.result = _finish(part, job, slide, identity, failures, pace)


@contextlib.contextmanager
def _own_error(part: Part) -> Iterator[None]:
    """Keep the error of one file, so that the others are encoded."""
    try:
        yield
    except (Busy, Mismatch, SlideError) as error:
        part.result = error


def _open_job(
    encoder: Encoder,
    part: Part,
    slide: Slide,
    settings: Settings,
    identity: Mapping[str, Any],
    progress: Progress,
) -> Job:
    """The journal of one encoder's file; one that was begun with another reader starts again."""
    header = {
        **part.known_provenance.settings(),
        "slide_bytes": identity["slide_bytes"],
        "slide_hash": identity["slide_hash"],
    }
    facts = {"source_path": identity["slide_path"], "reader": slide.reader}
    settings = continued(encoder, settings, part.known_provenance, part.file)
    encoder = _at_scale(encoder, part.known_plan.grid.target_mpp)
    tag_bytes = TAG_BYTES if settings.qc else 0
    if settings.qc:
        header["qc"] = True
    job = Job(encoder, part.file, settings, header, progress, facts=facts, tag_bytes=tag_bytes)
    begun = job.journal.facts.get("reader", "another version of pathencoder")
    if len(job.journal) and begun != slide.reader:
        part.known_plan.notes.append(
            f"{len(job.journal):,} tiles that {begun} had read are read again with {slide.reader}"
        )
        job.journal.restart(facts)
    return job


def _embed(tiles: Tiles, jobs: Sequence[Job], pace: Pace) -> list[tuple[int, Failure]]:
    """Fill the journals; the tiles that failed, with their ids."""
    failed = fill_together(
        jobs,
        [at for at in tiles.all if any(tile_id(at) not in job.journal for job in jobs)],
        tiles.read,
        tile_id,
        tiles.tag,
        total=len(tiles.all),
        mpp=tiles.grid.target_mpp,
        pace=pace,
    )
    path = tiles.slide.path
    return [
        (
            tile_id((x, y)),
            Failure(f"{x},{y}", str(error).removeprefix(f"{path}: "), type(error).__name__),
        )
        for (x, y), error in failed
    ]


def _finish(
    part: Part,
    job: Job,
    slide: Slide,
    identity: Mapping[str, Any],
    failed: Sequence[tuple[int, Failure]],
    pace: Pace,
) -> Outcome:
    """Write one encoder's file from its journal."""
    plan, provenance = part.known_plan, part.known_provenance
    failures = [failure for key, failure in failed if key not in job.journal]
    _refuse_if_all_failed(slide, len(plan.grid.coords), failures)
    notes = [*plan.notes, *pace.notes]
    facts = {
        "slide": printable(slide.path.name),
        **identity,
        "slide_mpp_source": plan.scale.source,
        "vendor": slide.vendor,
        "reader": slide.reader,
        "device": device_used(job.encoder),
        "notes": "\n".join(notes),
    }
    kept = np.array([tile_id((x, y)) in job.journal for x, y in plan.grid.coords.tolist()], bool)
    place = place_of_tiles(slide, plan.grid, kept)
    qc = quality_columns(job, slide, plan, place.coords) if job.settings.qc else {}
    content = Content(provenance, failures, facts, place=place, layout=job.settings.layout, qc=qc)
    new = job.finish(content, [tile_id((x, y)) for x, y in place.coords.tolist()])
    return Outcome(
        slide.path,
        "done" if len(plan.grid.coords) else "empty",
        part.file,
        rows=int(kept.sum()),
        new=new,
        failures=failures,
        notes=notes,
        encoder=provenance.encoder,
        reader=slide.reader,
        mpp=plan.scale.value,
    )


def _at_scale(encoder: Encoder, mpp: float) -> Encoder:
    """The same encoder with the scale of the tiles in its spec, so that they are not resized.

    The transform of an encoder without a scale would resize and crop tiles that the grid has
    read to measure.
    """
    same = copy.copy(encoder)  # shares the network, whose modes stay as they are
    same.spec = dataclasses.replace(encoder.spec, mpp=mpp)
    return same


def _refuse_if_all_failed(slide: Slide, tiles: int, failures: Sequence[Failure]) -> None:
    if tiles and len(failures) == tiles:
        raise SlideError(
            f"{slide.path}: none of its {tiles} tiles can be read, the first: {failures[0].reason}"
        )
