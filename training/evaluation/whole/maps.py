"""Dense figures of one row: a linear decoder on frozen maps, its scores kept by set."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from pathencoder.files import make_folder
from training.evaluation import dense
from training.evaluation.dense import DenseSet, Evaluated
from training.evaluation.dense_table import interval as interval_over_groups
from training.evaluation.report_rows import Difference, Interval, Result
from training.evaluation.whole.sets import MeasuredSet
from training.evaluation.whole.subjects import Row
from training.files import write_text

log = logging.getLogger("training")
_EVALUATED = TypeAdapter(Evaluated)
_NOT_ALIKE = "maps do not depend on the readout of the embedding"


def evaluated(row: Row, s: MeasuredSet, folder: Path, *, seeds: int) -> list[Evaluated]:
    """The counts of every training run, from the cache where they were computed before.

    Args:
        row: The encoder.
        s: A set with dense labels.
        folder: Where counts are kept.
        seeds: Draws of the positions that a decoder is fitted on.

    Returns:
        An entry a training run.

    Raises:
        PathEncoderError: An image cannot be read, the encoder has no maps, or the folder cannot be
            written.
    """
    return [_of_run(row, run, s, folder, seeds) for run in range(len(row.runs))]


def _of_run(row: Row, run: int, s: MeasuredSet, folder: Path, seeds: int) -> Evaluated:
    subject = row.runs[run]
    file = folder / subject.fingerprint[:16] / f"{s.key}-dense-{seeds}-v{dense.PROTOCOL}.json"
    if not file.exists():
        log.info("%s: maps of %d images of %s", row.name, len(s.pictures), s.row.name)
        found = dense.evaluate(
            subject.for_maps(), _labels(s), s.pictures, choose=False, seeds=range(seeds)
        )
        make_folder(file.parent)
        write_text(file, json.dumps(dataclasses.asdict(found)))
    return _EVALUATED.validate_json(file.read_text(encoding="utf-8"))


def result(row: Row, s: MeasuredSet, runs: list[Evaluated]) -> Result:
    """The figure of a row on a set."""
    labels = _labels(s)
    every = [one for run in runs for one in run.scores]
    found = interval_over_groups(labels, every)
    values = [dense.mean_score(labels, one) for one in every]
    by_run = [float(np.mean([dense.mean_score(labels, one) for one in run.scores])) for run in runs]
    first = every[0]
    return Result(
        encoder=row.name,
        set=s.row.name,
        part=labels.test,
        verb="dense",
        metric="f1" if labels.points else "dice",
        value=found.value,
        interval=Interval(low=found.low, high=found.high, resampled=s.row.groups),
        sd=float(np.std(by_run, ddof=1)) if len(runs) > 1 else float(np.std(values)),
        values=tuple(values),
        seeds=len(runs[0].scores),
        runs=len(runs),
        n=len(first),
        n_groups=len({x.group for x in first}),
        notes=(_NOT_ALIKE, *dict.fromkeys(note for run in runs for note in run.notes)),
    )


def difference(
    s: MeasuredSet, name: str, runs: list[Evaluated], against: str, theirs: list[Evaluated]
) -> Difference:
    """One row less another on the same images and resamples."""
    labels = _labels(s)
    mine, others = ([one for run in side for one in run.scores] for side in (runs, theirs))
    found = interval_over_groups(labels, mine, others)
    return Difference(
        encoder=name,
        against=against,
        set=s.row.name,
        part=labels.test,
        verb="dense",
        metric="f1" if labels.points else "dice",
        value=found.value,
        interval=Interval(low=found.low, high=found.high, resampled=s.row.groups),
    )


def _labels(s: MeasuredSet) -> DenseSet:
    assert s.dense is not None
    return s.dense
