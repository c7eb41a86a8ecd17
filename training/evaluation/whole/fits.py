"""What is fitted on embeddings, a process a job: probe, retrieval and calibration of one row.

Outcomes and results are kept: a job that ended is not done again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pathencoder.errors import ConfigError
from pathencoder.files import make_folder
from training.evaluation import calibration, probe, retrieval
from training.evaluation.outcomes import Floats, Ints, Outcome, Runs, load_outcomes, save_outcomes
from training.evaluation.report_rows import Interval, Result, Verb
from training.evaluation.sets import ProbeSet
from training.evaluation.whole.features import Features, Rows
from training.files import write_text

PROTOCOL = 1  # of the figures here: another number computes them again
_RESULTS = TypeAdapter(list[Result])
LACKS = "a class does not occur in the evaluated part: AUROC is not defined"


@dataclass(frozen=True)
class Job:
    """The tiles of one set, as one row embeds them.

    Attributes:
        row: Name of the row.
        tiles: The set.
        groups_are: What a group is.
        fingerprints: Of the encoder of each training run.
        row_key: Of the row (`Row.key`).
        features: The embeddings.
        key: Of the set, with a hash of its content.
        seeds: Of the probe.
        changed: Changed tiles are embedded, too.
        centres: The centre of each tile; None: not known.
    """

    row: str
    tiles: ProbeSet
    groups_are: str
    fingerprints: tuple[str, ...]
    row_key: str
    features: Features
    key: str
    seeds: int
    changed: bool = False
    centres: NDArray[np.str_] | None = None

    @property
    def folder(self) -> Path:
        """Where outcomes and results of the row are kept."""
        return self.features.folder / self.row_key

    def file(self, verb: Verb) -> Path:
        """Where the results of a verb are kept."""
        changed = "-changed" if verb == "robustness" and self.changed else ""
        return self.folder / f"{self.key}-{verb}{changed}-{self.seeds}-v{PROTOCOL}.json"

    def outcome_file(self, run: int) -> Path:
        """Where the outcomes of a training run are kept."""
        return self.folder / f"{self.key}-outcome-{run}-{self.seeds}-v{PROTOCOL}.npz"

    def rows(self, run: int) -> Rows:
        """The embeddings of a run.

        Raises:
            ConfigError: They are not there.
        """
        found = self.features.read(self.fingerprints[run], self.key, len(self.tiles.labels.files))
        if found is None:
            raise ConfigError(
                f"the embeddings of {self.tiles.name} are not there: run the command again"
            )
        return found

    def runs(self) -> Runs:
        """The outcomes of all runs, computed where they are not there."""
        make_folder(self.folder)
        found = []
        for run in range(len(self.fingerprints)):
            file = self.outcome_file(run)
            if not file.exists():
                x, test = self.rows(run), self.tiles.part
                save_outcomes(file, probe.probe(x, self.tiles.labels, test=test, seeds=self.seeds))
            found.append(load_outcomes(file))
        return found

    def result(self, verb: Verb, metric: str, value: float, **others: Any) -> Result:
        """A result of this row and set; without a value where it is not a number."""
        first = self.runs()[0][0] if "n" not in others else None
        counts = {"n": len(first.y), "n_groups": len(set(first.groups.tolist()))} if first else {}
        given = {**counts, "runs": len(self.fingerprints), **others}
        finite = bool(np.isfinite(value))
        notes = tuple(given.pop("notes", ()))
        return Result(
            encoder=self.row,
            set=self.tiles.name,
            part=self.tiles.part or "folds",
            verb=verb,
            metric=metric,
            value=float(value) if finite else None,
            notes=notes if finite or (notes and metric != "auroc") else (*notes, LACKS),
            **given,
        )


def probed(job: Job) -> list[Result]:
    """Linear, k-NN, few-shot and retrieval figures."""
    return kept(job, "probe", _probed)


def calibrated(job: Job) -> list[Result]:
    """Calibration before and after temperature scaling."""
    return kept(job, "calibration", _calibrated)


def kept(job: Job, verb: Verb, compute: Callable[[Job], list[Result]]) -> list[Result]:
    """The results of a verb from the cache, or computed and kept."""
    file = job.file(verb)
    if file.exists():
        found = _RESULTS.validate_json(file.read_text(encoding="utf-8"))
    else:
        found = compute(job)
        make_folder(file.parent)
        write_text(file, json.dumps([dataclasses.asdict(r) for r in found]))
    return [dataclasses.replace(r, encoder=job.row) for r in found]


def _probed(job: Job) -> list[Result]:
    runs = job.runs()
    s = probe.summarise(runs, job.tiles.part or "folds")
    every = [o for run in runs for o in run]
    values: dict[str, tuple[float, Sequence[float], tuple[float, float] | None]] = {
        "linear": (s.linear, [probe.balanced(o) for o in every], s.linear_interval),
        "auroc": (s.auroc, [_area(o) for o in every], s.auroc_interval),
        "knn20": (s.knn20, [probe.balanced(o, near=True) for o in every], None),
        "shot5": (s.shot5, [o.shots[5] for o in every], None),
        "shot16": (s.shot16, [o.shots[16] for o in every], None),
    }
    found = []
    for metric, (value, by_seed, around) in values.items():
        sd = {"linear": s.linear_sd, "auroc": s.auroc_sd}.get(metric, float(np.std(by_seed)))
        found.append(
            job.result(
                "probe",
                metric,
                value,
                interval=interval(around, job.groups_are) if around else None,
                sd=sd if np.isfinite(sd) else None,
                values=tuple(by_seed) if np.isfinite(by_seed).all() else (),
                seeds=job.seeds,
            )
        )
    return [*found, *_retrieved(job)]


def _area(outcome: Outcome) -> float:
    return probe.auroc(outcome.y, outcome.probability)


def _retrieved(job: Job) -> list[Result]:
    labels = job.tiles.labels
    part = labels.split == job.tiles.part if job.tiles.part else np.ones(len(labels.y), bool)
    y, groups = labels.y[part], labels.groups[part]
    ways: dict[str, Callable[..., Floats]] = {
        "retrieval_map": retrieval.average_precisions,
        "retrieval_at5": retrieval.right_at_first,
    }
    every = range(len(job.fingerprints))
    found = []
    for metric, way in ways.items():
        by_run = [way(job.rows(run)[part], y, groups) for run in every]
        values = [retrieval.mean_over_classes(v, y) for v in by_run]
        without = int(np.isnan(by_run[0]).sum())

        def figure(i: Ints, by_run: list[Floats] = by_run) -> float:
            return float(np.mean([retrieval.mean_over_classes(v[i], y[i]) for v in by_run]))

        around = probe.interval_of(job.runs()[0][0], figure)
        notes = [f"{without:,} queries have no tile of their class in another group: left out"]
        found.append(
            job.result(
                "probe",
                metric,
                float(np.mean(values)),
                interval=interval(around, job.groups_are),
                sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                notes=notes if without else (),
            )
        )
    return found


def _calibrated(job: Job) -> list[Result]:
    runs, labels = job.runs(), job.tiles.labels
    first = [run[0] for run in runs]
    notes = [
        "of the first seed; the probe weights classes equally, so where classes are rare a part of"
        " the error is the difference in their frequencies"
    ]
    found = _calibration_rows(job, [(o.y, o.probability) for o in first], "", notes)
    try:
        scaled = [
            calibration.temperature_scaled(job.rows(i), labels, o, test=job.tiles.part)
            for i, o in enumerate(first)
        ]
    except ConfigError as error:
        none = {"condition": "temperature scaled", "notes": (f"{error}",)}
        return [*found, job.result("calibration", "ece", float("nan"), **none)]
    pairs = [(o.y, s.probability) for o, s in zip(first, scaled, strict=True)]
    found += _calibration_rows(job, pairs, "temperature scaled", notes)
    temperature = float(np.mean([t for s in scaled for t in s.temperatures]))
    return [*found, job.result("calibration", "temperature", temperature)]


def _calibration_rows(
    job: Job, pairs: Sequence[tuple[Ints, Floats]], condition: str, notes: Sequence[str]
) -> list[Result]:
    ways = {
        "ece": calibration.expected_error,
        "brier": calibration.brier,
        "log_loss": calibration.log_loss,
    }
    found = []
    for metric, way in ways.items():
        values = [way(y, p) for y, p in pairs]

        def figure(i: Ints, way: Callable[[Ints, Floats], float] = way) -> float:
            return float(np.mean([way(y[i], p[i]) for y, p in pairs]))

        around = probe.interval_of(job.runs()[0][0], figure)
        found.append(
            job.result(
                "calibration",
                metric,
                float(np.mean(values)),
                condition=condition,
                interval=interval(around, job.groups_are),
                sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                notes=notes,
            )
        )
    return found


def reliability_of(job: Job) -> list[calibration.Bin]:
    """The bins of the reliability plot: the first run's first seed, as it is."""
    first = job.runs()[0][0]
    return calibration.reliability(first.y, first.probability)


def interval(around: tuple[float, float], groups_are: str) -> Interval | None:
    """The interval of a result; None where no resample gave a value."""
    low, high = around
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    return Interval(low=low, high=high, resampled=groups_are)
