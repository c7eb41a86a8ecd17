"""The `dense` command of training.evaluate: a linear decoder on frozen feature maps.

Dice of nuclei (MoNuSeg) and glands (GlaS), mean over images, and F1 of cell centres (CRCHisto),
with intervals over patients or slides and the paired difference to ImageNet's weights.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from pathencoder.metrics import Interval, grouped_bootstrap
from training.evaluation import dense as protocol
from training.evaluation import shared_options
from training.evaluation.dense import SETS, DenseSet, Score
from training.evaluation.encoders import Subject, networks
from training.files import stamp_of, write_text

log = logging.getLogger("training")
Runs = list[list[Score]]  # one list of images a seed


@click.command(name="dense", help=__doc__)
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder with nuclei/.")
@shared_options.cache_folder("runs/probe", "Folder of computed scores.")
@shared_options.chosen_sets(",".join(s.name for s in SETS))
@shared_options.cross_validated()
@shared_options.seeds("Draws of the positions that the decoder is fitted on.")
@shared_options.json_file()
def dense(
    names: tuple[str, ...],
    data: Path,
    cache: Path,
    chosen: str,
    cv: bool,  # noqa: FBT001
    seeds: int,
    out: Path | None,
) -> None:
    """Evaluate frozen feature maps by a linear decoder."""
    try:
        sets = _chosen(chosen.split(","))
        rows = networks(names)
        results: dict[str, dict[str, Runs]] = {s.name: {} for s in sets}
        for s in sets:
            for name, runs in rows.items():
                results[s.name][name] = [
                    scores
                    for x in runs
                    for scores in scores_of(x, s, data=data, cache=cache, choose=cv, seeds=seeds)
                ]
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    figures = {s.name: _report(s, results[s.name], choose=cv) for s in sets}
    if out:
        write_text(out, json.dumps(figures, indent=1) + "\n")


def scores_of(
    subject: Subject, s: DenseSet, *, data: Path, cache: Path, choose: bool, seeds: int
) -> Runs:
    """An encoder's scores on a set, from the cache where they were computed before.

    Args:
        subject: The encoder.
        s: The set.
        data: Folder with nuclei/.
        cache: Folder of computed scores.
        choose: By folds over groups of the train part.
        seeds: Number of seeds.

    Returns:
        One list of scores a seed.

    Raises:
        PathEncoderError: The set cannot be read, or the cache cannot be written.
    """
    folder = make_folder(cache / subject.fingerprint[:16])
    pictures = protocol.pictures_of(s, data, choose=choose)
    part = "cv" if choose else s.test
    labels = stamp_of(f for folder in {x.file.parent for x in pictures} for f in folder.iterdir())
    version = f"{labels}-v{protocol.PROTOCOL}"
    files = {seed: folder / f"dense-{s.name}-{part}-{seed}-{version}.json" for seed in range(seeds)}
    if missing := [seed for seed, file in files.items() if not file.exists()]:
        log.info("%s on %s: %d images, %d seeds", subject.name, s.name, len(pictures), len(missing))
        found = protocol.evaluate(subject.for_maps(), s, pictures, choose=choose, seeds=missing)
        say = log.warning if found.unfinished else log.info
        say("%s on %s: %s", subject.name, s.name, "; ".join(found.notes))
        for seed, scores in zip(missing, found.scores, strict=True):
            write_text(files[seed], json.dumps([dataclasses.asdict(x) for x in scores]))
    texts = [file.read_text(encoding="utf-8") for file in files.values()]
    return [[Score(**x) for x in json.loads(text)] for text in texts]


def interval(s: DenseSet, runs: Runs, against: Runs | None = None) -> Interval:
    """The mean score over seeds with its 95 % interval over groups.

    Args:
        s: The set.
        runs: An encoder's scores.
        against: Another encoder's scores of the same images: the paired difference to them.

    Returns:
        The mean, or the mean difference.
    """

    def figure(rows: np.ndarray) -> float:
        own = np.mean([protocol.mean_score(s, [run[i] for i in rows]) for run in runs])
        other = (
            np.mean([protocol.mean_score(s, [run[i] for i in rows]) for run in against])
            if against
            else 0.0
        )
        return float(own - other)

    return grouped_bootstrap(figure, [x.group for x in runs[0]], draws=500)


def _chosen(names: Sequence[str]) -> list[DenseSet]:
    by_name = {s.name: s for s in SETS}
    if unknown := [n for n in names if n not in by_name]:
        raise ConfigError(f"--sets: no dense set {unknown}; there are {', '.join(by_name)}")
    return [by_name[n] for n in names]


def _report(s: DenseSet, by_encoder: dict[str, Runs], *, choose: bool) -> dict[str, Any]:
    what = "F1 of cells" if s.points else "Dice"
    first = next(iter(by_encoder.values()))[0]
    where = "folds of the train part" if choose else s.test
    click.echo(
        f"\n{s.name}: {what}, {where}, {len(first)} images, {len({x.group for x in first})} groups,"
        f" {s.mpp:g} um/px"
    )
    figures = {}
    for name, runs in by_encoder.items():
        found = interval(s, runs)
        values = [protocol.mean_score(s, run) for run in runs]
        figures[name] = {
            "value": found.value,
            "sd": float(np.std(values)),
            "interval": [found.low, found.high],
            "seeds": len(runs),
        }
        line = (
            f"  {name:28s}{found.value:8.3f} ±{np.std(values):.3f}  [{found.low:.3f},"
            f" {found.high:.3f}]"
        )
        if name != "imagenet" and "imagenet" in by_encoder:
            paired = interval(s, runs, by_encoder["imagenet"])
            figures[name]["over_imagenet"] = [paired.value, paired.low, paired.high]
            line += f"   {paired.value:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}] to imagenet"
        click.echo(line)
    return figures
