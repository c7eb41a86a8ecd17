"""The figures of the model cards.

python -m training.evaluate all default --out runs/evaluation
python -m training.evaluate probe default imagenet random [--cv] [--sets ...] [--json OUT]
python -m training.evaluate probe default runs/mine/export --labels my.csv

`all` runs probe, dense, robustness and calibration and writes one JSON, a table and plots. `eva`
follows the protocol of eva's leaderboard. `probe` evaluates embeddings, `dense` feature maps by a
linear decoder, `heads` dense heads that are fitted on an encoder, `adapt` encoders that are adapted
to labelled tiles, `robustness` the influence of stain and scanner, `nuclei` compares label-free
nuclei, `tissue` compares tissue masks with outlines drawn by hand, `readings` compares readings of
one encoder on train folds (turned views, texture statistics), and `sets` lists the sets and where
they are had.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from training.evaluation import probe as protocol
from training.evaluation import shared_options
from training.evaluation.adapt_table import adapt
from training.evaluation.dense_table import dense
from training.evaluation.encoders import Subject, open_subject
from training.evaluation.eva.command import eva
from training.evaluation.heads_table import heads
from training.evaluation.nuclei_table import nuclei
from training.evaluation.outcomes import Outcome, Runs, load_outcomes, save_outcomes
from training.evaluation.readings import readings
from training.evaluation.robustness_table import robustness
from training.evaluation.sets import (
    CELL_SETS,
    SETS,
    ProbeSet,
    open_sets,
    own_set,
)
from training.evaluation.sets_command import sets
from training.evaluation.tissue_table import tissue
from training.evaluation.whole.command import evaluate_all
from training.files import write_text

log = logging.getLogger("training")

# Sets with a required figure, and the H&E ones among them. The two small sets have none.
BAR_SETS = ("amibr", "hpylori_ihc", "crc_polyp5", *CELL_SETS)
HE_SETS = tuple(s for s in BAR_SETS if s not in ("hpylori_ihc", "bcdata_sample"))

Results = dict[str, dict[str, Runs]]  # set -> encoder -> its training runs
Figures = dict[str, dict[str, Any]]  # as in the JSON


@click.group(help=__doc__)
def main() -> None:
    """Evaluate encoders."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


@main.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Your own labels instead of --sets: a table with file, label and, optionally, group and"
    " split, in the folder of its images. Without a split: folds by group.",
)
@shared_options.data_folder("Folder of the sets.")
@shared_options.cache_folder("runs/probe", "Cut cells, embeddings, outcomes.")
@shared_options.chosen_sets(",".join(SETS))
@shared_options.cross_validated()
@shared_options.seeds("Of the folds and of the few-shot draws.")
@shared_options.json_file()
def probe(
    names: tuple[str, ...],
    labels: Path | None,
    data: Path,
    cache: Path,
    chosen: str,
    cv: bool,  # noqa: FBT001
    seeds: int,
    out: Path | None,
) -> None:
    """Probe frozen encoders.

    Names: default, imagenet (three readouts), random, a catalogue name, an encoder's
    folder, or several training runs of one encoder as NAME=FOLDER,FOLDER.
    """
    try:
        if labels:
            sets = [own_set(labels, choose=cv)]
        else:
            sets = open_sets(chosen.split(","), data=data, cache=cache, choose=cv)
        subjects = [s for name in names for s in open_subject(name)]
        results = {s.name: _runs(subjects, s, cache, seeds) for s in sets}
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    summary = report(results, sets)
    summary["about"] = {
        "command": f"python -m training.evaluate {' '.join(sys.argv[1:])}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seeds": seeds,
        "encoders": _fingerprints(subjects),
    }
    if out:
        write_text(out, json.dumps(summary, indent=1) + "\n")
    click.echo(json.dumps(summary["means"]))


def _fingerprints(subjects: list[Subject]) -> dict[str, list[str]]:
    """Row -> what identifies the weights and the readout of each of its encoders."""
    found: dict[str, list[str]] = {}
    for subject in subjects:
        found.setdefault(subject.name, []).append(subject.fingerprint)
    return found


def _runs(subjects: list[Subject], s: ProbeSet, cache: Path, seeds: int) -> dict[str, Runs]:
    """Outcomes by name; subjects of one name are training runs of one encoder."""
    runs: dict[str, Runs] = {}
    for subject in subjects:
        runs.setdefault(subject.name, []).append(outcomes(subject, s, cache=cache, seeds=seeds))
    return runs


def outcomes(subject: Subject, s: ProbeSet, *, cache: Path, seeds: int) -> list[Outcome]:
    """Probe one encoder on one set, or read what was computed before.

    Args:
        subject: The encoder.
        s: The set.
        cache: Folder of outcomes.
        seeds: Number of seeds.

    Returns:
        One outcome a seed.

    Raises:
        PathEncoderError: The set cannot be read, or the cache cannot be written.
    """
    folder = make_folder(cache / subject.fingerprint[:16])
    part = f"{s.part or 'folds'}{'-cv' if s.choose else ''}"
    done = folder / f"{s.name}-{s.stamp}-{part}-{seeds}.npz"
    if not done.exists():
        log.info("%s on %s: %d images", subject.name, s.name, len(s.labels.files))
        rows = subject.embed([s.folder / f for f in s.labels.files])
        try:
            found = protocol.probe(rows, s.labels, test=s.part, seeds=seeds)
        except ConfigError as error:
            raise ConfigError(f"{s.name}: {error}") from error
        save_outcomes(done, found)
    return load_outcomes(done)


def report(results: Results, sets: list[ProbeSet]) -> Figures:
    """Print the tables.

    Args:
        results: Outcomes by set and encoder.
        sets: The sets, in the order of the tables.

    Returns:
        Every figure: `sets` by set and encoder (see `probe.Summary`), `means` of AUROC over groups
        of sets by encoder, and `paired` differences to ImageNet by set and encoder.
    """
    summary: Figures = {"sets": {}, "means": {}, "paired": {}}
    for s in sets:
        click.echo(
            f"\n{s.name} "
            f" ({s.part or 'five folds by group'}{', train parts alone' if s.choose else ''})"
        )
        click.echo(
            f"  {'encoder':28s}{'linear':>15s}{'AUROC':>15s}{'k-NN 20':>9s}{'16-shot':>9s}  95 % of"
            " linear, of AUROC"
        )
        for name, runs in results[s.name].items():
            row = protocol.summarise(runs, s.part or "folds")
            summary["sets"].setdefault(s.name, {})[name] = dataclasses.asdict(row)
            click.echo(
                f"  {name:28s}{row.linear:8.3f} ±{row.linear_sd:.3f}{row.auroc:9.3f}"
                f" ±{row.auroc_sd:.3f}{row.knn20:9.3f}{row.shot16:9.3f} "
                f" {_bounds(row.linear_interval)} {_bounds(row.auroc_interval)}  n {row.n}, groups"
                f" {row.groups}, runs {row.runs}"
            )
    _report_means(summary)
    _report_paired(results, summary)
    return summary


def _report_means(summary: Figures) -> None:
    there = summary["sets"]
    for title, wanted in (("bar sets", BAR_SETS), ("H&E sets", HE_SETS)):
        names = [s for s in wanted if s in there]
        if not names:
            continue
        click.echo(f"\nmean AUROC over the {title}: {', '.join(names)}")
        for encoder in there[names[0]]:
            value = float(np.mean([there[s][encoder]["auroc"] for s in names]))
            summary["means"].setdefault(encoder, {})[title] = round(value, 4)
            click.echo(f"  {encoder:28s}{value:8.3f}")


def _report_paired(results: Results, summary: Figures) -> None:
    """Each encoder against ImageNet's best readout on that set, on the same bootstrap draws."""
    for name, by_encoder in results.items():
        floors = {
            e: summary["sets"][name][e]["auroc"] for e in by_encoder if e.startswith("imagenet")
        }
        others = [e for e in by_encoder if e not in floors]
        if not floors or not others:
            continue
        floor = max(floors, key=lambda e: floors[e])
        click.echo(f"\n{name}: AUROC minus {floor} ({floors[floor]:.3f}), paired over groups")
        for encoder in others:
            found = protocol.paired_auroc(by_encoder[encoder], by_encoder[floor])
            around = (found.low, found.high)
            summary["paired"].setdefault(name, {})[encoder] = {
                "floor": floor,
                "difference": found.value,
                "interval": around,
            }
            click.echo(f"  {encoder:28s}{found.value:+8.3f}  {_bounds(around, signed=True)}")


def _bounds(interval: tuple[float, float], *, signed: bool = False) -> str:
    low, high = (f"{bound:+.3f}" if signed else f"{bound:.3f}" for bound in interval)
    return f"[{low}, {high}]"


main.add_command(evaluate_all)
main.add_command(eva)
main.add_command(nuclei)
main.add_command(robustness)
main.add_command(dense)
main.add_command(heads)
main.add_command(adapt)
main.add_command(sets)
main.add_command(tissue)
main.add_command(readings)


if __name__ == "__main__":
    sys.exit(main())
