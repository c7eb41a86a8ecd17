"""`pathencoder encode` after its command line was parsed: all jobs, then the summary."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.cli import report
from pathencoder.cli.ahead import Ahead
from pathencoder.cli.beside import Beside
from pathencoder.cli.encode_job import EncodeRun, may_be_prepared
from pathencoder.cli.inputs import Found, name_of, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended, Loop, conclude
from pathencoder.cli.mpp_table import Scales
from pathencoder.cli.ray_encode import encode_on_ray
from pathencoder.cli.ray_options import RayOptions
from pathencoder.cli.remote_slides import staging_of
from pathencoder.features.provenance import Settings
from pathencoder.remote.staging import Scratch

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def encode_all(
    encoder: Encoder,
    found: Found,
    scales: Scales,
    settings: Settings,
    out: Path,
    *,
    beside: Beside,
    again: AbstractSet[str],
    notes: Sequence[str],
    pictures: bool,
    save_tissue: bool,
    scratch: Scratch,
    ray: RayOptions | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Encode every job and report.

    Args:
        encoder: The encoder.
        found: The jobs, and what was left out.
        scales: The scale of each job, where a table gives it.
        settings: The same for all.
        out: An existing folder.
        beside: Files of areas and coordinates of slides.
        again: Names of jobs that are encoded again although they were done.
        notes: For the summary.
        pictures: Also draw every slide's tissue and tiles.
        save_tissue: Also write every slide's tissue.
        scratch: Where copies of remote slides lie.
        ray: The cluster to work on; None: this process.
        as_json: Print JSON instead of text.
        debug: Print tracebacks.

    Returns:
        The exit status.

    Raises:
        ConfigError: Settings that fit no input.
    """
    mpps = {
        job.name: mpp for job, mpp in zip(found.jobs, scales.mpps, strict=True) if mpp is not None
    }
    run = EncodeRun([encoder], [out], out, settings, mpps, beside, again, pictures, save_tissue)
    run.check(found.jobs)
    if ray is not None:
        ended = encode_on_ray(run, found.jobs, ray, scratch, debug=debug)
    else:
        ended = _encode_here(run, found.jobs, scratch, debug=debug)
    no_slide = not any(job.kind == "slide" for job in found.jobs)
    none_to_draw = pictures and no_slide
    notes = [
        *notes,
        *scales.notes,
        *beside.notes,
        *(["--pictures draws slides, and no input is a slide"] if none_to_draw else []),
        *(["--qc measures the tiles of slides alone"] if settings.qc and no_slide else []),
    ]
    return _conclude(ended, run, found, notes, as_json=as_json, debug=debug)


def _encode_here(run: EncodeRun, jobs: Sequence[Job], scratch: Scratch, *, debug: bool) -> Ended:
    """Encode in this process, each slide prepared while the one before it is encoded."""
    with contextlib.ExitStack() as stack:
        staging = stack.enter_context(staging_of(jobs, scratch, run.needs))
        run = replace(run, staging=staging)
        stop = staging.stop if staging is not None else _nothing
        ahead = Ahead(jobs, run.prepare, wanted=may_be_prepared, stop=stop)
        run = replace(run, ahead=stack.enter_context(ahead))
        return Loop(run.encode, source_of, name_of, debug=debug).run(jobs)


def _nothing() -> None:
    """What there is to stop where nothing is downloaded."""


def _conclude(
    ended: Ended, run: EncodeRun, found: Found, notes: Sequence[str], *, as_json: bool, debug: bool
) -> int:
    about = report.About(run.encoders[0].spec.name, run.out, found.left_out, notes)

    def text(failures: Path | None) -> str:
        return report.summary(ended.outcomes, about, failures=failures)

    def data(failures: Path | None) -> dict[str, Any]:
        return report.as_json(ended.outcomes, about, failures=failures, status=ended.status)

    return conclude(ended, run.out, as_text=text, as_json=data if as_json else None, debug=debug)
