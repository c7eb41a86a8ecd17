"""The `eva` command of training.evaluate: the sets of eva's leaderboard, from local copies.

The protocol is that of eva 0.4.5 to the letter, so that its published rows may stand beside ours:
tiles resized by their shorter side to 224 px and cropped, one linear layer, balanced accuracy, the
mean of five runs; masks by a decoder that also sees the image (MoNuSAC), slides by attention over
their tiles (PANDA). Without --set it says what each set is, where it is had, and whether published
rows can stand beside.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from training.evaluation import shared_options
from training.evaluation.encoders import subject_of
from training.evaluation.eva.eva_set import NONE_BESIDE, EvaImages, EvaSet
from training.evaluation.eva.measure import Case, as_eva_reads, measure
from training.evaluation.eva.sets import BY_NAME, EVA_SETS, NOT_HERE
from training.evaluation.report_file import write_report
from training.evaluation.report_rows import Absent, EncoderRow, Report, Result, SetRow
from training.evaluation.set_lists import sha256_of
from training.evaluation.whole.command import made_with, repeated_by, today
from training.evaluation.whole.features import Features
from training.evaluation.whole.subjects import Row, open_rows
from training.evaluation.whole.table import table
from training.files import write_text

log = logging.getLogger("training")
PUBLISHED = Path(__file__).with_name("published.csv")
_SOME_FAILED = 3


@click.command(name="eva", help=__doc__)
@click.argument("names", nargs=-1)
@click.option(
    "--set",
    "given",
    multiple=True,
    help=f"NAME=FOLDER, once for each set: {', '.join(BY_NAME)}.",
)
@shared_options.out_folder("runs/eva", "Folder of the JSON, the table and the cache.")
@shared_options.imagenet_weights()
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    help="Fits of each head. Default: eva's number for the set; another is not eva's protocol.",
)
def eva(
    names: tuple[str, ...],
    given: tuple[str, ...],
    out: Path,
    imagenet: tuple[Path, ...],
    runs: int | None,
) -> None:
    """Measure encoders on sets of eva."""
    if not given:
        click.echo(_where())
        return
    try:
        rows, absent = open_rows(names, imagenet)
        found = [_measured(*chosen, rows, out, runs) for chosen in _chosen(given)]
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    results = tuple(r for one in found for r in one.results)
    failed = [one.failed for one in found if one.failed]
    report = Report(
        date=today(),
        command=repeated_by(),
        packages=made_with(),
        encoders=tuple(_described(row) for row in rows),
        sets=tuple(one.row for one in found if one.row),
        results=results,
        absent=(*absent, *failed),
    )
    text = page(report)
    try:
        write_report(make_folder(out) / "evaluation.json", report)
        write_text(out / "evaluation.md", text)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)
    for one in failed:
        click.echo(f"not measured: {one.set}: {one.reason}")
    if failed:
        sys.exit(_SOME_FAILED)


@dataclass(frozen=True)
class _Found:
    """What was measured on a set, or why it was not."""

    row: SetRow | None
    results: tuple[Result, ...] = ()
    failed: Absent | None = None


def _chosen(given: Sequence[str]) -> list[tuple[EvaSet, Path]]:
    chosen = []
    for text in given:
        name, is_pair, folder = text.partition("=")
        if not is_pair or name not in BY_NAME:
            raise ConfigError(f"--set {text!r}: NAME=FOLDER, with one of {', '.join(BY_NAME)}")
        chosen.append((BY_NAME[name], Path(folder)))
    return chosen


def _measured(s: EvaSet, folder: Path, rows: Sequence[Row], out: Path, runs: int | None) -> _Found:
    count = runs or s.runs
    try:
        images = s.read(folder)
        if not {"train", "val"} <= set(images.parts):
            raise ConfigError(f"{folder}: {s.name} needs the parts train and val")
        described = _set_row(s, images, count)
        features = Features(make_folder(out / "cache"))
        key = f"{s.name}@{described.sha256[:12]}"
        found = [measure(Case(s, images, row, key, features, count)) for row in rows]
    except PathEncoderError as error:
        log.warning("%s is left out: %s", s.name, error)
        return _Found(None, failed=Absent(set=s.name, verb="eva", reason=str(error)))
    notes = dict.fromkeys([*described.notes, *(note for one in found for note in one.notes)])
    described = dataclasses.replace(described, notes=tuple(notes))
    return _Found(described, tuple(r for one in found for r in one.results))


def _described(row: Row) -> EncoderRow:
    encoder = as_eva_reads(row.runs[0].encoder)
    return dataclasses.replace(row, runs=(subject_of(row.name, encoder),)).described()


def _set_row(s: EvaSet, images: EvaImages, runs: int) -> SetRow:
    digest = hashlib.sha256()
    labels = {str(i): n for i, n in zip(images.images, images.labels, strict=True)}
    for file in sorted(images.files):
        # slides are not read whole for it: they are hundreds of gigabytes
        content = str(file.stat().st_size) if s.kind == "slides" else sha256_of(file)
        digest.update(f"{file.name}\t{labels.get(str(file), '')}\t{content}\n".encode())
    return SetRow(
        name=s.name,
        title=s.title,
        stain="he",
        groups="image",
        sha256=digest.hexdigest(),
        licence=s.licence,
        homepage=s.homepage,
        notes=(*s.notes, *images.notes, *not_comparable(s, images, runs)),
    )


def not_comparable(s: EvaSet, images: EvaImages, runs: int) -> list[str]:
    """Why no published row can stand beside: other images, or another number of runs."""
    reasons = []
    counts = images.counts()
    if any(counts.get(part, 0) != n for part, n in s.expected.items() if part in ("train", "val")):
        there = ", ".join(f"{counts.get(p, 0):,} {p}" for p in s.expected)
        theirs = ", ".join(f"{n:,} {p}" for p, n in s.expected.items())
        reasons.append(f"{NONE_BESIDE}: {there} images, in eva {theirs}")
    if runs != s.runs:
        reasons.append(f"{NONE_BESIDE}: {runs} runs, in eva {s.runs}")
    return reasons


def page(report: Report) -> str:
    """The table: our rows, then the published ones of the sets on which they can stand beside."""
    columns = {
        (s.name, part): column
        for s in EVA_SETS
        for part, column in s.reported.items()
        if report.find(set=s.name, part=part)
    }
    beside = {s.name for s in report.sets if not any(n.startswith(NONE_BESIDE) for n in s.notes)}
    rows = []
    for e in report.encoders:
        cells = []
        for name, part in columns:
            found = report.find(encoder=e.name, set=name, part=part)
            cells.append(f"{found[0].value:.3f} ±{found[0].sd or 0:.3f}" if found else "-")
        rows.append((e.name, *cells))
    published = _published() if beside else {}
    for model, figures in published.items():
        cells = [figures.get(c, "-") if n in beside else "-" for (n, _), c in columns.items()]
        rows.append((f"{model} (published)", *cells))
    head = ("row", *(f"{name}, {part}" for name, part in columns))
    notes = "\n".join(f"- {s.name}: {'; '.join(s.notes)}" for s in report.sets if s.notes)
    return (
        f"# The protocol of eva 0.4.5\n\n{report.date}. `{report.command}`\n\nBalanced accuracy"
        " (monusac: Dice), mean and standard deviation of the runs. Published rows: eva's"
        " leaderboard of April 2026 (kaiko-ai.github.io/eva), not measured here."
        f"\n\n{table(head, rows)}\n\n{notes}\n"
    )


def _published() -> dict[str, dict[str, str]]:
    with PUBLISHED.open(encoding="utf-8", newline="") as stream:
        return {row.pop("model"): row for row in csv.DictReader(stream)}


def _where() -> str:
    lines = ["Sets of eva's leaderboard; give local copies with --set NAME=FOLDER:"]
    for s in EVA_SETS:
        counts = ", ".join(f"{n:,} {part}" for part, n in s.expected.items())
        notes = f"; {'; '.join(s.notes)}" if s.notes else ""
        lines.append(f"  {s.name}: {s.title}; {counts}; {s.homepage} ({s.licence}){notes}")
    lines.append("Not run here, so none of our rows can stand beside the published ones:")
    lines += [f"  {name}: {reason}" for name, reason in NOT_HERE.items()]
    return "\n".join(lines)
