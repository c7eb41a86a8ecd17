"""`pathencoder encode` after its command line was parsed: all jobs, then the summary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder import cores
from pathencoder.cli import report
from pathencoder.cli.ahead import Ahead
from pathencoder.cli.encode_job import EncodeRun, may_be_prepared
from pathencoder.cli.encode_task import EncodeTask
from pathencoder.cli.inputs import name_of, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended, Loop
from pathencoder.cli.lanes import folders_of, run_lanes
from pathencoder.cli.ray_encode import encode_on_ray
from pathencoder.cli.remote_slides import staging_of
from pathencoder.cli.summary_files import write_summaries
from pathencoder.errors import StoreError
from pathencoder.features.provenance import Settings
from pathencoder.remote.staging import Scratch
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def encode_all(lanes: Sequence[Sequence[Encoder]], task: EncodeTask) -> int:
    """Encode every job and report.

    Args:
        lanes: The encoders, on each device.
        task: What to encode, how, and where to.

    Returns:
        The exit status.

    Raises:
        ConfigError: Settings that fit no input.
    """
    found, names = task.found, [encoder.spec.name for encoder in lanes[0]]
    run = EncodeRun(
        lanes[0],
        folders_of(task.out, names),
        task.out,
        _shared_workers(task.settings, len(lanes)),
        {job.name: row for job, row in zip(found.jobs, task.scales.rows, strict=True)},
        task.beside,
        task.again,
        pictures=task.pictures,
        save_tissue=task.save_tissue,
    )
    run.check(found.jobs)
    started = time.monotonic()
    if task.ray is not None:
        ended = encode_on_ray(run, found.jobs, task.ray, task.scratch, debug=task.debug)
    else:
        ended = _encode_here(run, lanes, found.jobs, task.scratch, debug=task.debug)
    seconds = time.monotonic() - started
    about = report.About(", ".join(names), task.out, found.left_out, _notes(task), seconds=seconds)
    return _conclude(ended, about, task)


def _notes(task: EncodeTask) -> list[str]:
    """The notes of the summary, also on options that had no effect."""
    no_slide = not any(job.kind == "slide" for job in task.found.jobs)
    none_to_draw, none_to_measure = task.pictures and no_slide, task.settings.qc and no_slide
    return [
        *task.notes,
        *task.scales.notes,
        *task.beside.notes,
        *(["--pictures draws slides, and no input is a slide"] if none_to_draw else []),
        *(["--qc measures the tiles of slides alone"] if none_to_measure else []),
    ]


def _shared_workers(settings: Settings, lanes: int) -> Settings:
    """Decoding threads of each device, where the user gives no number: a share of the cores."""
    if lanes == 1 or settings.workers is not None:
        return settings
    return replace(settings, workers=max(1, min(cores.available() // lanes, 16)))


def _encode_here(
    run: EncodeRun,
    lanes: Sequence[Sequence[Encoder]],
    jobs: Sequence[Job],
    scratch: Scratch,
    *,
    debug: bool,
) -> Ended:
    """Encode in this process, each slide prepared while the one before it is encoded."""
    with contextlib.ExitStack() as stack:
        staging = stack.enter_context(staging_of(jobs, scratch, run.needs))
        run = replace(run, staging=staging)
        stop = staging.stop if staging is not None else _nothing
        ahead = Ahead(jobs, run.prepare, wanted=may_be_prepared, stop=stop, depth=len(lanes))
        run = replace(run, ahead=stack.enter_context(ahead))
        runs = [replace(run, encoders=encoders) for encoders in lanes]
        loops = [Loop(one.encode, source_of, name_of, debug=debug) for one in runs]
        return run_lanes(loops, jobs)


def _nothing() -> None:
    """What there is to stop where nothing is downloaded."""


def _conclude(ended: Ended, about: report.About, task: EncodeTask) -> int:
    for outcome in ended.outcomes:
        if not outcome.encoder and "," not in about.encoder:
            outcome.encoder = about.encoder
    try:
        about = replace(about, table=write_summaries(about.out, ended.outcomes))
    except StoreError as error:
        click.echo(f"warning: {printable(str(error))}", err=True)

    def text(failures: Path | None) -> str:
        return report.summary(ended.outcomes, about, failures=failures)

    return task.conclude(ended, about, text)
