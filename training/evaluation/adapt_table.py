"""The `adapt` command of training.evaluate: adapted encoders beside the frozen ones, by set.

Every fit is kept as a line of a file, so that a run that stops goes on with the next fit.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from pathencoder import allocator, metrics
from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from pathencoder.heads.adapt.options import HOWS, Options
from pathencoder.heads.adapt.report import auroc, balanced_accuracy
from pathencoder.heads.adapt.run import adapt as adapt_encoder
from pathencoder.heads.data.dataset import TRAIN, Dataset
from pathencoder.heads.data.read import read_dataset
from pathencoder.heads.folds import grouped_folds
from training.evaluation import shared_options
from training.evaluation.encoders import Subject, networks
from training.evaluation.heads_table import read
from training.evaluation.outcomes import Floats, Ints
from training.evaluation.over_seeds import over_seeds
from training.evaluation.sets import TILE_SETS

log = logging.getLogger("training")

_TEST = "test"
_FIGURES: dict[str, Callable[[Ints, Floats], float]] = {
    "balanced accuracy": balanced_accuracy,
    "AUROC": auroc,
}


@click.command(name="adapt", help=__doc__)
@click.argument("names", nargs=-1, required=True)
@shared_options.data_folder("Folder with tiles/.")
@shared_options.results_file("runs/adapt.jsonl")
@shared_options.chosen_sets("amibr,hpylori_ihc")
@click.option("--how", "hows", default=",".join(HOWS), show_default=True, help="Comma-separated.")
@shared_options.cross_validated()
@click.option(
    "--folds", default=5, show_default=True, help="With --cv: how many of the five folds are read."
)
@shared_options.seeds("Fits of each encoder and set.")
@click.option("--epochs", default=Options.epochs, show_default=True, help="Of a fit, at most.")
@click.option("--rate", type=float, default=None, help="Highest learning rate of the encoder.")
@click.option("--stages", type=int, default=None, help="For last.")
def adapt(
    names: tuple[str, ...],
    data: Path,
    results: Path,
    chosen: str,
    hows: str,
    cv: bool,  # noqa: FBT001
    folds: int,
    seeds: int,
    epochs: int,
    rate: float | None,
    stages: int | None,
) -> None:
    """Adapt encoders, and compare each with the frozen one."""
    allocator.keep_freed_memory()
    try:
        subjects = [x for runs in networks(names).values() for x in runs]
        make_folder(results.parent)
        for name in chosen.split(","):
            for fold, part in enumerate(_parts(name, data, choose=cv)[: folds if cv else None]):
                for subject, how, seed in _each(subjects, hows.split(","), seeds):
                    options = Options(how, epochs=epochs, rate=rate, stages=stages, seed=seed)
                    key = {"set": name, "part": "folds" if cv else _TEST, "fold": fold}
                    _fit(subject, part, options, key, results)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(read(results)))


def _each(
    subjects: Sequence[Subject], hows: Sequence[str], seeds: int
) -> Iterator[tuple[Subject, str, int]]:
    for seed in range(seeds):
        for how in hows:
            for subject in subjects:
                yield subject, how, seed


def _parts(name: str, data: Path, *, choose: bool) -> list[Dataset]:
    """A set with the parts "train" and "test": its own, or each fold of its train part."""
    if name not in TILE_SETS:
        raise ConfigError(f"--sets: no set {name!r}; there are {', '.join(TILE_SETS)}")
    found = read_dataset(data / "tiles" / name / "labels.csv")
    train = found.take(found.rows_of(TRAIN))
    if not choose:
        test = found.take(found.rows_of(_TEST))
        if not len(test):
            raise ConfigError(f"{name} has no part {_TEST!r}: read it with --cv")
        return [found.take([*found.rows_of(TRAIN), *found.rows_of(_TEST)])]
    y = np.array([train.classes.index(label) for label in train.labels])
    groups = np.unique(np.asarray(train.groups), return_inverse=True)[1]
    return [_split(train, held) for _, held in grouped_folds(y, groups)]


def _split(train: Dataset, held: Ints) -> Dataset:
    kept = set(held.tolist())
    splits = tuple(_TEST if row in kept else TRAIN for row in range(len(train)))
    return dataclasses.replace(train, splits=splits)


def _fit(
    subject: Subject, data: Dataset, options: Options, key: dict[str, Any], results: Path
) -> None:
    """Adapt, compare and keep the result, unless it is there."""
    key = {
        **key,
        "encoder": subject.name,
        "fingerprint": subject.fingerprint[:16],
        "options": dataclasses.asdict(options) | {"rate": options.highest_rate},
    }
    if key in [line["key"] for line in read(results)]:
        return
    log.info("%s, %s on %s, seed %d", subject.name, options.how, key["set"], options.seed)
    began = time.process_time()
    adapted = adapt_encoder(
        subject.encoder, data, evaluate=_TEST, progress=_say, **dataclasses.asdict(options)
    )
    compared = adapted.report.held_out
    assert compared is not None
    rows = data.rows_of(_TEST)
    line = {
        "key": key,
        "y": [adapted.head.classes.index(data.labels[row]) for row in rows],
        "groups": [(data.groups or ())[row] for row in rows],
        "probabilities": np.round(compared.probabilities, 6).tolist(),
        "epochs": [[e.number, e.loss, e.stop_loss] for e in adapted.report.epochs[1:]],
        "best": adapted.report.best,
        "cpu_seconds": round(time.process_time() - began),
    }
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _say(done: int, most: int) -> None:
    if done % 50 == 0:
        log.info("step %d of %d at most", done, most)


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and paired differences over groups, as a Markdown table.

    The folds of a seed are joined before anything is computed.
    """
    kinds: dict[tuple[str, ...], dict[int, list[dict[str, Any]]]] = {}
    for line in lines:
        key = line["key"]
        options = dict(key["options"])
        seed = options.pop("seed")
        shown = f"{options['how']}, {options['epochs']} epochs, rate {options['rate']:g}"
        row = (key["set"], key["part"], key["encoder"], shown, json.dumps(options))
        kinds.setdefault(row, {}).setdefault(seed, []).append(line)
    head = ["set", "part", "encoder", "adapted", "figure", "frozen", "adapted (sd)"]
    head += ["difference, 95 % over groups", "seeds", "core-minutes"]
    shown_rows = [_row(head), _row(["---"] * len(head))]
    for named, seeds in sorted(kinds.items()):
        common = set.intersection(*({_fold(f) for f in folds} for folds in seeds.values()))
        if not common:  # of a run that goes on
            continue
        joined = [_joined([f for f in folds if _fold(f) in common]) for folds in seeds.values()]
        minutes = np.mean([f["cpu_seconds"] / 60 for folds in seeds.values() for f in folds])
        for figure, statistic in _FIGURES.items():
            cells = _cells(joined, statistic)
            shown_rows.append(_row([*named[:4], figure, *cells, str(len(seeds)), f"{minutes:.1f}"]))
    return "\n".join(shown_rows)


@dataclasses.dataclass(frozen=True)
class _Joined:
    """The predictions of one seed: its folds one after the other."""

    y: Ints
    groups: list[str]
    probabilities: Floats  # [2, N, C]: frozen, adapted


def _joined(folds: list[dict[str, Any]]) -> _Joined:
    ordered = sorted(folds, key=_fold)
    return _Joined(
        np.concatenate([np.asarray(line["y"]) for line in ordered]),
        [group for line in ordered for group in line["groups"]],
        np.concatenate([np.asarray(line["probabilities"]) for line in ordered], axis=1),
    )


def _fold(line: dict[str, Any]) -> int:
    return int(line["key"]["fold"])


def _cells(seeds: Sequence[_Joined], statistic: Callable[[Ints, Floats], float]) -> list[str]:
    frozen, adapted = ([statistic(s.y, s.probabilities[i]) for s in seeds] for i in (0, 1))

    def gain(rows: Ints) -> float:
        each = [
            statistic(s.y[rows], s.probabilities[1][rows])
            - statistic(s.y[rows], s.probabilities[0][rows])
            for s in seeds
        ]
        return float(np.mean(each))

    found = metrics.grouped_bootstrap(gain, seeds[0].groups, labels=seeds[0].y)
    return [
        f"{np.mean(frozen):.3f}",
        over_seeds(adapted),
        f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
