"""`encode --dry-run`: what would be done with every input.

Slides are opened for their scale. No pixel is read and nothing is written.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from pathencoder.cli import report
from pathencoder.cli.common import echo_json, plural
from pathencoder.cli.inputs import Found, Job, output_of
from pathencoder.cli.jobs import reason_of
from pathencoder.cli.mpp_table import Scales
from pathencoder.cli.tile_scales import stated_scales
from pathencoder.features.provenance import Settings


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
    notes: tuple[str, ...] = ()
    problem: str | None = None


def dry_run_of(
    found: Found, scales: Scales, settings: Settings, out: Path, *, as_json: bool
) -> int:
    """Print what would be done.

    Args:
        found: The jobs, and what was left out.
        scales: The scale of each job, where a table gives it.
        settings: The same for all.
        out: The output folder; need not exist.
        as_json: Print JSON instead of text.

    Returns:
        The exit status: 3 where an input would fail, as far as it can be known, else 0.
    """
    plans = [
        _plan(job, mpp or settings.mpp, out, settings.layout)
        for job, mpp in zip(found.jobs, scales.mpps, strict=True)
    ]
    status = 3 if any(plan.problem for plan in plans) else 0
    if as_json:
        left_out = [{"path": str(left.path), "reason": left.reason} for left in found.left_out]
        about = {"out": str(out), "status": status, "notes": scales.notes, "left_out": left_out}
        echo_json({**about, "inputs": [asdict(plan) for plan in plans]})
        return status
    lines = [line for plan in plans for line in _lines(plan)]
    lines += [*report.left_out_lines(found.left_out), *(f"Note: {note}" for note in scales.notes)]
    click.echo("\n".join([*lines, "Nothing was written (--dry-run)."]))
    return status


def _plan(job: Job, given: float | None, out: Path, layout: str) -> _Plan:
    if job.kind == "nothing":
        return _Plan(str(job.source), job.kind, problem=job.problem)
    file = output_of(job, out, layout)
    facts: dict[str, Any] = {
        "input": str(job.source),
        "kind": job.kind,
        "output": str(file),
        "output_exists": file.exists(),
    }
    if job.kind == "tiles":
        source = "given" if given else "not given: every image is resized whole"
        notes = () if given else tuple(stated_scales(job.images))
        return _Plan(**facts, images=len(job.images), mpp=given, mpp_source=source, notes=notes)
    try:
        return _Plan(**facts, **_slide(job.source, given))
    except Exception as error:
        return _Plan(**facts, problem=reason_of(error).removeprefix(f"{job.source}: "))


def _slide(path: Path, given: float | None) -> dict[str, Any]:
    from pathencoder.slides.reader import open_slide

    slide = open_slide(path)
    try:
        scale = slide.mpp(given)
        return {
            "size": slide.size,
            "mpp": scale.value,
            "mpp_source": scale.source,
            "notes": scale.notes,
        }
    finally:
        slide.close()


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
    return [
        f"{plan.input}: {what}, {scale} -> {plan.output}{there}",
        *(f"    {note}" for note in plan.notes),
    ]
