"""`encode --dry-run`: what would be done with every input.

Slides are opened for their scale. No pixel is read and nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli import report
from pathencoder.cli.common import echo_json, plural
from pathencoder.cli.encode_job import notes_on_tiles
from pathencoder.cli.encode_task import EncodeTask
from pathencoder.cli.inputs import output_of
from pathencoder.cli.job import Job
from pathencoder.cli.job_settings import settings_of
from pathencoder.cli.jobs import reason_of
from pathencoder.cli.mpp_table import Row
from pathencoder.cli.tissue_run import NO_SLIDE, coords_of
from pathencoder.features.coords import check_recipe
from pathencoder.features.finished import check_kind, refuse_lone_tensor
from pathencoder.features.provenance import Settings, slide_target
from pathencoder.mpp import scale_notes

if TYPE_CHECKING:
    from pathencoder.spec import EncoderSpec

_NO_SPEC = "the encoder's scale is not known without network: notes on scale are incomplete"


@dataclass(frozen=True)
class _Plan:
    """What would be done with one input; `size` is of a slide, `images` of a folder of tiles."""

    input: str
    kind: str
    output: str | None = None
    output_exists: bool = False
    images: int | None = None
    size: tuple[int, int] | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    reader: str | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None


def dry_run_of(
    task: EncodeTask, specs: Sequence[EncoderSpec | None], folders: Sequence[Path]
) -> int:
    """Print what would be done.

    Args:
        task: What would be encoded, and how.
        specs: Of each encoder; None where it cannot be known without network.
        folders: The folder for the files of each; need not exist.

    Returns:
        The exit status: 3 where an input would fail, as far as it can be known, else 0.
    """
    plans = [
        _plan(task, job, row, spec, folder)
        for job, row in zip(task.found.jobs, task.scales.rows, strict=True)
        for spec, folder in zip(specs, folders, strict=True)
    ]
    status = 3 if any(plan.problem for plan in plans) else 0
    left_out = task.found.left_out
    notes = [*task.scales.notes, *([] if all(specs) else [_NO_SPEC])]
    if task.as_json:
        about = {
            "out": str(folders[0] if len(folders) == 1 else folders[0].parent),
            "status": status,
            "notes": notes,
            "left_out": [{"path": str(x.path), "reason": x.reason} for x in left_out],
        }
        echo_json({**about, "inputs": [asdict(plan) for plan in plans]})
        return status
    lines = [line for plan in plans for line in _lines(plan)]
    lines += [*report.left_out_lines(left_out), *(f"Note: {note}" for note in notes)]
    click.echo("\n".join([*lines, "Nothing was written (--dry-run)."]))
    return status


def _plan(
    task: EncodeTask, job: Job, row: Row | None, spec: EncoderSpec | None, out: Path
) -> _Plan:
    only_tissue = task.only_tissue
    if job.kind == "nothing" or (only_tissue and job.kind != "slide"):
        return _Plan(str(job.source), job.kind, problem=job.problem or NO_SLIDE)
    file = coords_of(out, job) if only_tissue else output_of(job, out, task.settings.layout)
    facts: dict[str, Any] = {
        "input": str(job.source),
        "kind": job.kind,
        "output": str(file),
        "output_exists": file.exists(),
    }
    try:
        settings = settings_of(task.settings, job, row, task.beside, task.again)
        given = settings.mpp
        if not settings.overwrite:
            _check(file, job, settings, spec, only_tissue=only_tissue)
        if job.remote is not None:
            size = f"{job.remote.size / 1e6:,.0f} MB to download; its scale is read then"
            return _Plan(**facts, mpp=given, mpp_source="not known yet", notes=(size,))
        if job.kind == "slide":
            return _Plan(**facts, **_slide(job.source, settings, spec))
        source = "given" if given else "not given: every image is resized whole"
        notes = tuple(notes_on_tiles(job, settings, spec.mpp if spec else None))
        return _Plan(**facts, images=len(job.images), mpp=given, mpp_source=source, notes=notes)
    except Exception as error:
        return _Plan(**facts, problem=reason_of(error).removeprefix(f"{job.source}: "))


def _check(
    file: Path, job: Job, settings: Settings, spec: EncoderSpec | None, *, only_tissue: bool
) -> None:
    """Refuse existing files that a run would refuse, as far as it can be known."""
    if not file.exists():
        if job.kind == "slide" and not only_tissue:
            refuse_lone_tensor(file, settings.layout)
    elif not only_tissue:
        check_kind(file, settings.layout, is_slide=job.kind == "slide")
    elif spec is not None:
        check_recipe(file, spec, settings)


def _slide(path: Path, settings: Settings, spec: EncoderSpec | None) -> dict[str, Any]:
    from pathencoder.slides.reader import open_slide

    target = slide_target(spec, settings) if spec else settings.target_mpp
    slide = open_slide(path)
    try:
        scale = slide.mpp(settings.mpp)
    finally:
        slide.close()
    notes = scale_notes(scale.value, target or scale.value, spec.mpp if spec else None)
    return {
        "size": slide.size,
        "mpp": scale.value,
        "mpp_source": scale.source,
        "reader": slide.reader,
        "notes": (*slide.notes, *scale.notes, *notes),
    }


def _lines(plan: _Plan) -> list[str]:
    if plan.problem:
        return [f"{plan.input}: would fail: {plan.problem}"]
    what = "slide" if plan.size is None else f"slide of {plan.size[0]:,} x {plan.size[1]:,} px"
    what = what if plan.images is None else plural(plan.images, "image")
    scale = (
        f"scale {plan.mpp_source}"
        if plan.mpp is None
        else f"{plan.mpp:.4g} um/px ({plan.mpp_source})"
    )
    there = " (exists)" if plan.output_exists else ""
    by = f" by {plan.reader}" if plan.reader else ""
    return [
        f"{plan.input}: {what}{by}, {scale} -> {plan.output}{there}",
        *(f"    {note}" for note in plan.notes),
    ]
