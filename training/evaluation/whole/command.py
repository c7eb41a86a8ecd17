"""The `all` command of training.evaluate: every figure of an encoder, in one JSON.

Writes OUT/evaluation.json (the schema is in training/evaluation/report_file.py), evaluation.md and
plots. What is computed is kept in OUT/cache: the same command goes on where it stopped, and takes
seconds the second time.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import logging
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

import pathencoder
from pathencoder import cores
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from training.evaluation import shared_options
from training.evaluation.calibration import Bin
from training.evaluation.report_file import without_places, write_report
from training.evaluation.report_rows import Absent, Report, Verb
from training.evaluation.whole.fits import reliability_of
from training.evaluation.whole.plots import draw
from training.evaluation.whole.run import VERBS, Measured, Plan, means, measure
from training.evaluation.whole.sets import Opened, open_all
from training.evaluation.whole.subjects import open_rows
from training.evaluation.whole.table import page
from training.files import write_text

log = logging.getLogger("training")
_PACKAGES = ("torch", "timm", "scikit-learn", "numpy", "pillow", "onnxruntime")
_SOME_FAILED = 3


@click.command(name="all", help=__doc__)
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder of the sets (docs/evaluation.md).")
@shared_options.out_folder(
    "runs/evaluation", "Folder of the JSON, the table, the plots and the cache."
)
@click.option(
    "--sets",
    "chosen",
    default="",
    help="Comma-separated: known sets, folders with a labels.csv. Default: all that are there.",
)
@click.option(
    "--verbs", default=",".join(VERBS), show_default=True, help="Comma-separated protocols."
)
@shared_options.seeds("Of the probe and of the decoder.")
@shared_options.imagenet_weights()
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=cores.available,
    show_default="one a core",
    help="For what is fitted on embeddings.",
)
def evaluate_all(
    names: tuple[str, ...],
    data: Path,
    out: Path,
    chosen: str,
    verbs: str,
    seeds: int,
    imagenet: tuple[Path, ...],
    processes: int,
) -> None:
    """Measure everything and write it."""
    begun = time.monotonic()
    try:
        wanted = _verbs(verbs)
        rows, missing = open_rows(names, imagenet)
        opened = open_all(data, [c for c in chosen.split(",") if c], make_folder(out / "cache"))
        plan = Plan(rows, opened.sets, wanted, data, out / "cache", seeds, processes)
        found = measure(plan)
        report = assemble(plan, found, [*missing, *opened.absent])
        made = write_all(out, report, found)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(page(report))
    _say(report, opened, made, time.monotonic() - begun)
    if opened.broken or found.absent:
        sys.exit(_SOME_FAILED)


def assemble(plan: Plan, found: Measured, absent: Sequence[Absent]) -> Report:
    """The report of what was measured."""
    there = {r.set for r in found.results}
    return Report(
        date=today(),
        command=repeated_by(),
        packages=made_with(),
        encoders=tuple(row.described() for row in plan.rows),
        sets=tuple(row for row in (*(s.row for s in plan.sets), *found.scans) if row.name in there),
        results=tuple(found.results),
        means=tuple(means(found.results, plan.rows, plan.sets)),
        differences=tuple(found.differences),
        absent=tuple(
            dataclasses.replace(a, reason=without_places(a.reason))
            for a in (*absent, *found.absent)
        ),
    )


def write_all(out: Path, report: Report, found: Measured) -> list[Path]:
    """Write JSON, page and plots; returns the files."""

    def bins(encoder: str, name: str) -> Sequence[Bin] | None:
        job = found.jobs.get((encoder, name))
        return reliability_of(job) if job else None

    write_report(out / "evaluation.json", report)
    write_text(out / "evaluation.md", page(report))
    return [out / "evaluation.json", out / "evaluation.md", *draw(report, out, bins)]


def _verbs(text: str) -> list[Verb]:
    wanted = [v.strip() for v in text.split(",") if v.strip()]
    if not wanted or set(wanted) - set(VERBS):
        raise ConfigError(f"--verbs {text!r}: some of {', '.join(VERBS)}")
    return cast(list[Verb], wanted)


def today() -> str:
    """The date, YYYY-MM-DD, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def repeated_by() -> str:
    """The command line of this process, without absolute paths."""
    return without_places(shlex.join(["python", "-m", "training.evaluate", *sys.argv[1:]]))


def made_with() -> dict[str, str]:
    """Versions of Python, of this package and of those that figures depend on."""
    found = {"python": platform.python_version(), "pathencoder": pathencoder.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _say(report: Report, opened: Opened, made: Sequence[Path], seconds: float) -> None:
    sets = len({r.set for r in report.results})
    click.echo(
        f"{len(report.results):,} figures of {len(report.encoders)} rows on {sets} sets in"
        f" {seconds / 60:.1f} minutes: {', '.join(map(str, made))}"
    )
    for one in report.absent:
        who = f", {one.encoder}" if one.encoder else ""
        click.echo(f"not measured: {one.set}{who} ({one.verb}): {one.reason}")
    if opened.broken:
        click.echo(f"left out, to be corrected: {', '.join(opened.broken)}")
