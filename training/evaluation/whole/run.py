"""All figures of an evaluation, in an order in which everything that is slow is done once.

1. every tile through every network, 2. changed tiles, 3. maps of the dense sets, 4. what is fitted
on embeddings, in processes of one thread. What is finished is kept below `cache`; the same command
goes on from there.
"""

from __future__ import annotations

import concurrent.futures
import functools
import json
import logging
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathencoder import cores
from pathencoder.errors import PathEncoderError
from training.evaluation.probe import paired_auroc
from training.evaluation.report_rows import Absent, Difference, Mean, Result, SetRow, Verb
from training.evaluation.whole import fits, maps, places, shifts
from training.evaluation.whole.features import Features
from training.evaluation.whole.fits import Job
from training.evaluation.whole.sets import MeasuredSet
from training.evaluation.whole.subjects import Row, readings_of
from training.files import write_text

log = logging.getLogger("training")
VERBS: tuple[Verb, ...] = ("probe", "dense", "robustness", "calibration")


@dataclass
class Measured:
    """What was measured so far.

    Attributes:
        results: The figures.
        differences: To the ImageNet rows.
        absent: What could not be measured, and why.
        scans: Sets of scanned fields.
        jobs: By row and set, for plots.
    """

    results: list[Result] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    absent: list[Absent] = field(default_factory=list)
    scans: list[SetRow] = field(default_factory=list)
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        rows: The encoders.
        sets: The sets.
        verbs: Of `VERBS`.
        data: Folder of the sets, for scanned fields.
        cache: Folder of everything that is kept.
        seeds: Of the probe and of the decoder.
        processes: For what is fitted on embeddings.
    """

    rows: Sequence[Row]
    sets: Sequence[MeasuredSet]
    verbs: Sequence[Verb]
    data: Path
    cache: Path
    seeds: int = 3
    processes: int = field(default_factory=cores.available)

    def job(self, row: Row, s: MeasuredSet) -> Job:
        """The tiles of a set, as a row embeds them."""
        assert s.probe is not None
        return Job(
            row.name,
            s.probe,
            s.row.groups,
            tuple(run.fingerprint for run in row.runs),
            row.key,
            Features(self.cache),
            s.key,
            self.seeds,
            is_changed(s, self),
            s.centres,
        )


def measure(plan: Plan) -> Measured:
    """Measure everything. A set or an encoder that fails is left out with its reason.

    Raises:
        StoreError: The cache cannot be written.
    """
    found = Measured()
    embedded = _embed(plan, found)
    found.jobs = {(r.name, s.row.name): plan.job(r, s) for s in embedded for r in plan.rows}
    dense = _dense(plan, found) if "dense" in plan.verbs else []
    _fitted(plan, found, embedded)
    if "robustness" in plan.verbs:
        _scanned(plan, found, embedded)
    found.results += dense
    return found


def _embed(plan: Plan, found: Measured) -> list[MeasuredSet]:
    """The sets whose tiles all networks have embedded."""
    features, readings, embedded = Features(plan.cache), readings_of(plan.rows), []
    if set(plan.verbs) <= {"dense"}:
        return []
    for s in plan.sets:
        if s.probe is None:
            continue
        files = [s.probe.folder / f for f in s.probe.labels.files]
        try:
            features.complete(readings, s.key, len(files), functools.partial(list, files))
            if "robustness" in plan.verbs and is_changed(s, plan):
                shifts.embed_changed(features, readings, s.probe, s.key)
        except PathEncoderError as error:
            _leave_out(found, s.row.name, _on_embeddings(plan), error)
            continue
        embedded.append(s)
    return embedded


def _on_embeddings(plan: Plan) -> Verb:
    """The first of the protocols that need embeddings."""
    return next((v for v in plan.verbs if v != "dense"), "probe")


def is_changed(s: MeasuredSet, plan: Plan) -> bool:
    """Whether tiles of this set are changed: known sets of whole tiles, else every set."""
    there = [x.row.name for x in plan.sets if x.row.name in shifts.KNOWN]
    has_part = s.probe is not None and s.probe.part is not None
    return has_part and (s.row.name in there if there else True)


def _dense(plan: Plan, found: Measured) -> list[Result]:
    results = []
    for s in plan.sets:
        if s.dense is None:
            continue
        scores = {}
        for row in _networks(plan.rows):
            try:
                scores[row.name] = maps.evaluated(row, s, plan.cache, seeds=plan.seeds)
            except PathEncoderError as error:
                _leave_out(found, s.row.name, "dense", error, row.name)
                continue
            results.append(maps.result(row, s, scores[row.name]))
        for row in plan.rows:
            for other in plan.rows:
                pair = row.name in scores and other.name in scores
                if pair and row.role == "evaluated" and other.role.startswith("imagenet"):
                    mine, theirs = scores[row.name], scores[other.name]
                    found.differences.append(maps.difference(s, row.name, mine, other.name, theirs))
    return results


def _networks(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ in their maps: ImageNet once, whatever is read of it."""
    kept: list[Row] = []
    maps_of_imagenet = []
    for row in rows:
        if row.role.startswith("imagenet"):
            described = row.described()
            network = (described.architecture, described.transform)
            if network in maps_of_imagenet:
                continue
            maps_of_imagenet.append(network)
        kept.append(row)
    return kept


def _fitted(plan: Plan, found: Measured, sets: Sequence[MeasuredSet]) -> None:
    """Probe, retrieval, calibration, and the paired differences of AUROC."""
    ways: dict[Verb, Callable[[Job], list[Result]]] = {
        "probe": fits.probed,
        "calibration": fits.calibrated,
        "robustness": _robust,
    }
    wanted: list[Verb] = [v for v in ("probe", "calibration", "robustness") if v in plan.verbs]
    needed = [ways[v] for v in wanted] or [_only_outcomes]
    kept = all(job.file(v).exists() for v in wanted for job in found.jobs.values())
    with _pool(1 if kept else plan.processes) as pool:
        pending = {key: pool.submit(_in_turn, job, needed) for key, job in found.jobs.items()}
        for (row, name), future in pending.items():
            try:
                found.results += future.result()
            except PathEncoderError as error:
                _leave_out(found, name, _on_embeddings(plan), error, row)
                del found.jobs[row, name]
        if "probe" in plan.verbs:
            found.differences += _paired(plan, found, sets, pool)


def _in_turn(job: Job, ways: Sequence[Callable[[Job], list[Result]]]) -> list[Result]:
    return [result for way in ways for result in way(job)]


def _only_outcomes(job: Job) -> list[Result]:
    job.runs()
    return []


def _paired(
    plan: Plan,
    found: Measured,
    sets: Sequence[MeasuredSet],
    pool: concurrent.futures.Executor,
) -> list[Difference]:
    pairs = [
        (s, row.name, other.name)
        for s in sets
        for row in plan.rows
        for other in plan.rows
        if row.role == "evaluated"
        and other.role.startswith("imagenet")
        and (row.name, s.row.name) in found.jobs
        and (other.name, s.row.name) in found.jobs
    ]
    pending = [
        pool.submit(_difference, found.jobs[a, s.row.name], found.jobs[b, s.row.name])
        for s, a, b in pairs
    ]
    differences = []
    for (s, row, _), future in zip(pairs, pending, strict=True):
        try:
            differences.append(future.result())
        except PathEncoderError as error:
            _leave_out(found, s.row.name, "probe", error, row)
    return [d for d in differences if d is not None]


def _difference(mine: Job, theirs: Job) -> Difference | None:
    """AUROC less AUROC, paired over groups; None where a class does not occur."""
    file = mine.folder / f"{mine.key}-less-{theirs.row_key}-{mine.seeds}-v{fits.PROTOCOL}.json"
    if not file.exists():
        found = paired_auroc(mine.runs(), theirs.runs())
        values = (found.value, found.low, found.high)
        kept = values if all(map(math.isfinite, values)) else None
        write_text(file, json.dumps(kept))
    values = json.loads(file.read_text(encoding="utf-8"))
    if values is None:
        return None
    return Difference(
        encoder=mine.row,
        against=theirs.row,
        set=mine.tiles.name,
        part=mine.tiles.part or "folds",
        verb="probe",
        metric="auroc",
        value=values[0],
        interval=fits.interval((values[1], values[2]), mine.groups_are),
    )


def _robust(job: Job) -> list[Result]:
    return fits.kept(job, "robustness", _robust_now)


def _robust_now(job: Job) -> list[Result]:
    return [*(shifts.shifted(job) if job.changed else []), *places.by_centre(job)]


def _scanned(plan: Plan, found: Measured, sets: Sequence[MeasuredSet]) -> None:
    """Fields that several scanners scanned, centred on the tiles of the first H&E set."""
    scans = places.open_scans(plan.data)
    around = next((s for s in sets if s.row.name == "crc_polyp5"), None)
    if not scans or around is None:
        return
    readings, features = readings_of(plan.rows), Features(plan.cache)
    for scan in scans:
        features.complete(readings, scan.key, scan.count, scan.fields)
        found.scans.append(scan.row)
    for row in plan.rows:
        job = found.jobs.get((row.name, around.row.name))
        first = [features.read(row.runs[0].fingerprint, scan.key, scan.count) for scan in scans]
        if job is None or first[0] is None:
            continue
        for scan, rows in zip(scans, first, strict=True):
            if rows is not None:
                background = job.rows(0)
                found.results += places.scanned(row.name, scan, rows, background, first[0])


def means(
    results: Sequence[Result], rows: Sequence[Row], sets: Sequence[MeasuredSet]
) -> list[Mean]:
    """Mean AUROC and balanced accuracy of each row over the H&E sets and over the IHC sets.

    A row that misses a set gets no mean. Sets without tiles, whose figures are dense, do not count.
    """
    found = []
    for title, stain in (("H&E sets", "he"), ("IHC sets", "ihc")):
        names = [s.row.name for s in sets if s.row.stain == stain and s.in_means and s.probe]
        for row in rows:
            for metric in ("auroc", "linear"):
                values = [
                    r.value
                    for r in results
                    if (r.encoder, r.verb, r.metric) == (row.name, "probe", metric)
                    and r.set in names
                ]
                there = [v for v in values if v is not None]
                if names and len(there) == len(names):
                    mean = sum(there) / len(there)
                    found.append(
                        Mean(
                            encoder=row.name,
                            title=title,
                            verb="probe",
                            metric=metric,
                            value=mean,
                            sets=tuple(names),
                        )
                    )
    return found


def _leave_out(found: Measured, name: str, verb: Verb, error: Exception, row: str = "") -> None:
    log.warning("%s, %s %s: left out: %s", name, verb, row, error)
    found.absent.append(Absent(set=name, verb=verb, reason=str(error), encoder=row))


class _Inline(concurrent.futures.Executor):
    """Does everything at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as an executor: the caller of result() sees it
            future.set_exception(error)
        return future


def _pool(processes: int) -> concurrent.futures.Executor:
    if processes == 1:
        return _Inline()
    return concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread
    )


def _one_thread() -> None:
    """Many small fits: more threads only wait for each other."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # no annotations

    torch.set_num_threads(1)
    threadpool_limits(1)
