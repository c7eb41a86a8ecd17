"""`pathencoder predict` after its command line was parsed: all inputs, then the summary."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pathencoder.cli import report
from pathencoder.cli.common import plural
from pathencoder.cli.inputs import Found, find_inputs, name_of, refuse_nothing, source_of
from pathencoder.cli.job import Job
from pathencoder.cli.jobs import Ended, Loop, conclude
from pathencoder.cli.meter import Meter
from pathencoder.cli.names import give_names
from pathencoder.cli.predict_slides import predict_slides
from pathencoder.cli.prediction_record import Record
from pathencoder.cli.prediction_table import Target, abstained, rows_of, write_table
from pathencoder.errors import HeadMismatch, ImageError
from pathencoder.features import checksums
from pathencoder.features.containers import feature_files
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure, read_features
from pathencoder.files import of_one_input
from pathencoder.heads.feature_files import check_rows
from pathencoder.heads.slide.head import SlideHead
from pathencoder.heads.slide.survival import SurvivalHead
from pathencoder.walk import LeftOut, printable

if TYPE_CHECKING:
    from pathencoder.heads.classifier import Classifier

    Head: TypeAlias = "Classifier | SlideHead | SurvivalHead"

_AT_ONCE = 1024  # images between two reports of progress
_FEATURES = "features"  # a job of this kind is a feature file


def find(inputs: Iterable[Path], out: Path) -> Found:
    """The jobs in images, folders, feature files and folders of feature files.

    Raises:
        click.UsageError: There is nothing to predict on.
    """
    files: dict[str, Path] = {}  # one that is named twice counts once
    others, left_out = [], []
    for path in inputs:
        features, images = _features_in(path)
        files |= {os.path.abspath(file): file for file in features}
        if not features:
            others.append(path)
        elif images:
            reason = f"{plural(images, 'image')} beside feature files: name them to predict on them"
            left_out.append(LeftOut(path, reason))
    found = find_inputs(others, out=out)
    found.left_out += left_out
    # the file as its own single image: its output is then named without the suffix
    jobs = [Job(path, _FEATURES, images=((path.name, path),)) for path in files.values()]
    # `predict` has no --as
    found.jobs = [replace(one, problem=one.problem.partition(": --as ")[0]) for one in found.jobs]
    found.jobs = give_names([*jobs, *found.jobs])
    refuse_nothing(found)
    return found


def _features_in(path: Path) -> tuple[list[Path], int]:
    """The feature files that an input is or holds, and the images of the user beside them.

    An HDF5 file among images that pathencoder did not write makes no folder one of features.
    """
    if path.is_file():
        return ([path] if path.suffix.lower() == ".h5" else []), 0
    files = feature_files(path) if path.is_dir() else []
    if not files:
        return [], 0
    # the pictures of `encode --pictures` lie there too; they are none of the user's
    beside = find_inputs([path], out=path).jobs
    images = sum(len(job.images) for job in beside)
    return (files if not images or any(map(checksums.marked, files)) else []), images


def predict_all(
    head: Head,
    found: Found,
    out: Path,
    mpp: float | None,
    *,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Predict on every job and report.

    Args:
        head: The head, with its encoder.
        found: The jobs, and what was left out.
        out: An existing folder.
        mpp: Of the images.
        overwrite: Write every table anew, also in the place of one of another input.
        as_json: Print JSON instead of text.
        debug: Print tracebacks.

    Returns:
        The exit status.
    """
    digest = head.digest()

    def do(job: Job, meter: Meter) -> Outcome:
        started = time.monotonic()
        target = Target(out / f"{job.name}.csv", Record.of(job, digest, mpp))
        before = target.rows_before(overwrite=overwrite)
        if before is None:
            outcome = _predict(head, job, target, mpp, meter)
        else:
            outcome = Outcome(job.source, "before", target.file, before)
        outcome.seconds = time.monotonic() - started
        return outcome

    ended = Loop(do, source_of, name_of, unit="image", debug=debug).run(found.jobs)
    about = report.About(head.record.name, out, found.left_out)

    def data(failures: Path | None) -> dict[str, Any]:
        return report.as_json(ended.outcomes, about, failures=failures, status=ended.status)

    return conclude(
        ended,
        out,
        as_text=lambda failures: _text(ended, about, head, failures),
        as_json=data if as_json else None,
        debug=debug,
    )


def _predict(head: Head, job: Job, target: Target, mpp: float | None, meter: Meter) -> Outcome:
    """The outcome of one job; errors of its input pass through."""
    if isinstance(head, SlideHead | SurvivalHead):
        return predict_slides(head, job, target, meter)
    if job.kind == _FEATURES:
        return _of_features(head, job, target)
    if job.kind == "slide":
        raise ImageError(
            f"{job.source}: a slide. Encode its tiles first, `pathencoder encode"
            f" {printable(job.source)} --out features`, and predict on features/{job.name}.h5"
        )
    if job.kind == "nothing":
        raise ImageError(f"{job.source}: {job.problem}")
    rows: list[list[Any]] = []
    failures: list[Failure] = []
    for start in range(0, len(job.images), _AT_ONCE):
        images = job.images[start : start + _AT_ONCE]
        meter(start, len(job.images))
        found = head.predict([path for _, path in images], mpp=mpp, on_error="nan", progress=False)
        failures += [
            Failure(
                images[int(i)][0],
                printable(reason.removeprefix(f"images[{i}] {images[int(i)][1]}: ")),
            )
            for i, reason in found.errors.items()
        ]
        good = [i for i in range(len(found)) if i not in found.errors]
        rows += rows_of([[images[i][0]] for i in good], found, good)
    if not rows:
        raise ImageError(f"{job.source}: no image can be read, the first: {failures[0].reason}")
    write_table(target, ["image"], head.classes, rows, failures=len(failures))
    done = Outcome(job.source, "done", target.file, len(rows), len(rows), failures=failures)
    done.parts = None if job.whole else frozenset(key for key, _ in job.images)
    done.notes += abstained(rows, head.classes)
    return done


def _of_features(head: Classifier, job: Job, target: Target) -> Outcome:
    with of_one_input():
        features = read_features(job.source)
    try:
        notes = check_rows(head.record, features, head.encoder)
    except HeadMismatch as error:
        raise HeadMismatch(f"{job.source}: {error}") from error
    if not len(features.rows):
        return Outcome(job.source, "empty")
    found = head.predict_rows(features.rows)
    rows = list(range(len(found)))
    if features.coords is None:
        header, keys = ["image"], [[key] for key in features.keys or map(str, rows)]
    else:
        header, keys = ["x", "y"], features.coords.tolist()
    table = rows_of(keys, found, rows)
    write_table(target, header, head.classes, table)
    notes += abstained(table, head.classes)
    return Outcome(job.source, "done", target.file, len(rows), len(rows), notes=notes)


def _text(ended: Ended, about: report.About, head: Head, failures: Path | None) -> str:
    lines = [line for o in ended.outcomes for line in report.lines_of(o, "prediction")]
    lines += report.left_out_lines(about.left_out)
    counts = Counter(o.status for o in ended.outcomes)
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    rows = sum(o.rows for o in ended.outcomes)
    what = "risk" if isinstance(head, SurvivalHead) else ", ".join(head.classes)
    lines.append(
        f"{plural(len(ended.outcomes), 'input')}: {said}. {plural(rows, 'prediction')} of"
        f" {what} by the head {head.kind} on {head.record.name} in {about.out}"
    )
    return "\n".join([*lines, *report.failure_lines(ended.outcomes, failures)])
