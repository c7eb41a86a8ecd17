"""Robustness of one row on one set: tiles are changed, the k-NN and the probe stay as they are.

Both are fitted on unchanged tiles of the train part. The evaluated tiles are a sample of the
evaluated part, evenly spaced in its table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from pathencoder.images import open_image
from pathencoder.metrics import balanced_accuracy, knn_predict
from training.data.spaced import evenly_spaced
from training.evaluation import changes, probe
from training.evaluation.changes import CHANGES, CONDITIONS
from training.evaluation.outcomes import Floats, Ints, Outcome
from training.evaluation.probe import NEIGHBOURS, logistic
from training.evaluation.report_rows import Result
from training.evaluation.robustness import Image, centred_cosine
from training.evaluation.sets import ProbeSet
from training.evaluation.whole.features import Features, Rows
from training.evaluation.whole.fits import Job, interval
from training.evaluation.whole.subjects import Reading
from training.monitor.collapse import spread

MOST = 200  # tiles that are changed
KNOWN = ("crc_polyp5", "hpylori_ihc")  # of the known sets those with whole tiles and a test part


def sampled(tiles: ProbeSet) -> Ints:
    """The rows whose tiles are changed."""
    evaluated = np.flatnonzero(tiles.labels.split == tiles.part)
    chosen: Ints = evaluated[evenly_spaced(len(evaluated), MOST)]
    return chosen


def embed_changed(
    features: Features, readings: Sequence[Reading], tiles: ProbeSet, key: str
) -> None:
    """Embed every change of the sampled tiles that is not there yet.

    Raises:
        ImageError: A tile cannot be read.
        StoreError: The embeddings cannot be written.
    """
    chosen = sampled(tiles)
    originals: list[Image] = []

    def changed(change: changes.Change) -> Callable[[], list[Image]]:
        @functools.cache  # the same tiles for every network
        def make() -> list[Image]:
            if not originals:
                originals.extend(open_image(tiles.folder / tiles.labels.files[i]) for i in chosen)
            return change.of(originals)

        return make

    for change in CHANGES:
        features.complete(readings, changed_key(key, change), len(chosen), changed(change))


def changed_key(key: str, change: changes.Change) -> str:
    """The name of a change's embeddings."""
    return f"{key}-{MOST}-{change.key}"


def shifted(job: Job) -> list[Result]:
    """The figures of one row on one set.

    Args:
        job: The tiles; of several training runs the first is measured.

    Returns:
        Under each condition the centred cosine, k-NN and AUROC of the probe; and the effective rank
        of the unchanged tiles.
    """
    tiles, mine = job.tiles, job.fingerprints[0]
    chosen, rows = sampled(tiles), job.rows(0)
    y, groups = tiles.labels.y[chosen], tiles.labels.groups[chosen]
    judge = _Judge(rows, tiles, job.runs()[0][0], y, groups)
    counts = {"n": len(chosen), "n_groups": len(set(groups.tolist())), "runs": 1}
    notes = [f"{len(chosen)} of {int((tiles.labels.split == tiles.part).sum())} tiles of the part"]
    if len(job.fingerprints) > 1:
        notes.append("of the first training run")
    plain = rows[chosen]
    found = judge.results(job, "unchanged", [plain], counts, notes)
    rank = spread(torch.from_numpy(plain))["rankme"]
    found.append(job.result("robustness", "effective_rank", rank, notes=notes, **counts))
    for condition in CONDITIONS:
        draws = [c for c in CHANGES if c.condition == condition]
        moved = [job.features.read(mine, changed_key(job.key, c), len(chosen)) for c in draws]
        there = [m for m in moved if m is not None]
        cosines = [centred_cosine(plain, m) for m in there]
        found.append(
            job.result(
                "robustness",
                "centred_cosine",
                float(np.mean(cosines)),
                condition=condition,
                notes=notes,
                **_draws(cosines),
                **counts,
            )
        )
        found += judge.results(job, condition, there, counts, notes)
    return found


class _Judge:
    """k-NN and probe, fitted on the unchanged train part."""

    def __init__(
        self, rows: Rows, tiles: ProbeSet, outcome: Outcome, y: Ints, groups: NDArray[np.str_]
    ) -> None:
        train = np.flatnonzero(tiles.labels.split == "train")
        self._train = rows[train].astype(np.float64)
        self._labels = tiles.labels.y[train]
        self._classes = len(tiles.labels.names)
        self._scaler = StandardScaler().fit(self._train)
        self._model = logistic(outcome.cs[0]).fit(self._scaler.transform(self._train), self._labels)
        self._y, self._groups = y, groups

    def results(
        self,
        job: Job,
        condition: str,
        draws: Sequence[Rows],
        counts: dict[str, int],
        notes: Sequence[str],
    ) -> list[Result]:
        """k-NN and AUROC under one condition, means over its draws."""
        y = self._y
        near = [knn_predict(d, self._train, self._labels, k=NEIGHBOURS) for d in draws]
        probabilities = [self._probabilities(d) for d in draws]

        def area(i: Ints) -> float:
            return float(np.mean([probe.auroc(y[i], p[i]) for p in probabilities]))

        right = [balanced_accuracy(y, n) for n in near]
        areas = [probe.auroc(y, p) for p in probabilities]
        around = probe.interval_of(
            Outcome(y, self._groups, near[0], probabilities[0], near[0], {}), area
        )
        common = {"condition": condition, "notes": notes, **counts}
        return [
            job.result("robustness", "knn20", float(np.mean(right)), **_draws(right), **common),
            job.result(
                "robustness",
                "auroc",
                float(np.mean(areas)),
                interval=interval(around, job.groups_are),
                **_draws(areas),
                **common,
            ),
        ]

    def _probabilities(self, rows: Rows) -> Floats:
        found: Floats = np.zeros((len(rows), self._classes))
        scaled = self._scaler.transform(rows.astype(np.float64))
        found[:, self._model.classes_] = self._model.predict_proba(scaled)
        return found


def _draws(values: Sequence[float]) -> dict[str, object]:
    """The fields of a result that is a mean over draws."""
    if len(values) < 2 or not np.isfinite(values).all():
        return {}
    return {"values": tuple(values), "sd": float(np.std(values)), "seeds": len(values)}
