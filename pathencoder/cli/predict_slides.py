"""`pathencoder predict` with a slide head: feature files in, a table of slides out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.cli.inputs import Found, refuse_nothing
from pathencoder.cli.job import Job
from pathencoder.cli.meter import Meter
from pathencoder.cli.names import file_stem, give_names
from pathencoder.cli.prediction_table import Target, abstained, rows_of, write_risks, write_table
from pathencoder.errors import StoreError
from pathencoder.features.job import Outcome
from pathencoder.features.store import Failure
from pathencoder.heads.slide.base import ONE_BY_ONE, files_of
from pathencoder.heads.slide.survival import Risks, SurvivalHead
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.slide.head import SlideHead

_SLIDES = "slides"  # a job of this kind is feature files


def find_features(inputs: Iterable[Path]) -> Found:
    """The jobs in feature files and folders of them: a folder is one job, with one table.

    Raises:
        click.UsageError: There is nothing to predict on.
    """
    jobs = []
    for path in dict.fromkeys(inputs):
        try:
            files = files_of(path)
        except StoreError as error:
            jobs.append(Job(path, "nothing", problem=str(error)))
            continue
        # the file as its own single image: its output is then named without the suffix
        names = [path.name] if files == [path] else [file_stem(file) for file in files]
        jobs.append(Job(path, _SLIDES, images=tuple(zip(names, files, strict=True))))
    found = Found(give_names(jobs))
    refuse_nothing(found)
    return found


def predict_slides(
    head: SlideHead | SurvivalHead, job: Job, target: Target, meter: Meter
) -> Outcome:
    """Predict on the feature files of one job, and write its table.

    Args:
        head: The head.
        job: From `find_features`.
        target: The table.
        meter: Gets the progress.

    Returns:
        The outcome, with what failed; a slide that cannot be used costs only its own row.

    Raises:
        StoreError: The table cannot be written.
    """
    if job.kind != _SLIDES:
        return Outcome(job.source, "failed", failures=[Failure("", job.problem, "StoreError")])
    rows, failures = [], list[Failure]()
    for number, (name, path) in enumerate(job.images):
        meter(number, len(job.images))
        # by its path it is a bag of its own, of which the head does not warn each time
        found = head.predict([path], patients=[str(path)], on_error="nan")
        if found.errors:
            reason = printable(next(iter(found.errors.values())))
            failures.append(Failure("" if job.is_one_image else name, reason, "StoreError"))
        elif isinstance(found, Risks):
            rows.append([file_stem(path), f"{found.risks[0]:.6g}"])
        else:
            rows += rows_of([[file_stem(path)]], found, [0])
    if not rows:
        whole = [Failure("", failures[0].reason, failures[0].kind)]
        return Outcome(job.source, "failed", failures=whole)
    notes = [ONE_BY_ONE] if head.by_patient else []
    if isinstance(head, SurvivalHead):
        write_risks(target, rows, failures=len(failures))
    else:
        write_table(target, ["slide"], head.classes, rows, failures=len(failures))
        notes += abstained(rows, head.classes)
    count = len(rows)
    return Outcome(job.source, "done", target.file, count, count, failures=failures, notes=notes)
