"""The frozen linear head beside the adapted encoder: on folds, and on a held-out part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pathencoder.heads import judge
from pathencoder.heads.adapt import seen
from pathencoder.heads.adapt.fit import Fitted, Job, fit, linear_settings
from pathencoder.heads.adapt.learner import embeddings
from pathencoder.heads.adapt.report import Comparison, auroc, balanced_accuracy, difference
from pathencoder.heads.adapt.train import Steps
from pathencoder.heads.classifier import Classifier, class_numbers
from pathencoder.heads.embed import embed
from pathencoder.heads.linear import Linear
from pathencoder.heads.parts import Part
from pathencoder.heads.report import evaluated
from pathencoder.heads.rows import Floats, Ints, softmax


def on_stopping(job: Job, whole: Fitted) -> Comparison | None:
    """On the rows whose loss ended the training; None without any.

    Both were fitted on the other rows.
    """
    if not len(whole.stop):
        return None
    frozen = whole.begin.logits(job.rows.x[whole.stop])
    note = (
        "epoch and penalty were chosen by these images: the adapted figures are slightly too good"
    )
    return _compared(
        job,
        frozen,
        whole.logits,
        job.rows.y[whole.stop],
        _taken(job.train.groups, whole.stop),
        "the groups that end the training",
        (note,),
    )


def on_folds(job: Job, named: judge.Named, steps: Callable[[int], Steps]) -> Comparison:
    """On folds by group: for each, both are fitted on the others."""
    shape = (len(job.rows.y), job.rows.classes)
    frozen, adapted = np.zeros(shape), np.zeros(shape)
    for number, (chosen, held) in enumerate(named.pairs, 1):
        fitted = fit(job, chosen, number, steps(number))
        rows = job.rows.take(chosen)
        frozen[held] = Linear.fit(rows, linear_settings(rows)).logits(job.rows.x[held])
        adapted[held] = fitted.head.logits(embeddings(fitted.encoder, job.tiles, held))
    return _compared(job, frozen, adapted, job.rows.y, job.train.groups, named.name, ())


def on_held_out(job: Job, head: Classifier, part: Part) -> Comparison:
    """On a held-out part: both were fitted on the train part.

    Args:
        job: What was adapted.
        head: On the adapted encoder.
        part: The held-out part, embedded by the frozen encoder before anything was trained.

    Returns:
        The comparison.

    Raises:
        ImageError: An image can no longer be read.
    """
    data = part.data
    names = [data.name(row) for row in range(len(data))]
    # not kept on disk: each adaptation has rows of its own
    found = embed(head.encoder, head.record, data.images, names, cache=None, progress=False)
    for error in found.errors.values():
        raise error
    frozen = Linear.fit(job.rows, linear_settings(job.rows))
    y = class_numbers(data.labels, job.train.classes)
    return _compared(
        job,
        frozen.logits(part.found.rows.astype(np.float64)),
        head.model.logits(found.rows.astype(np.float64)),
        y,
        data.groups,
        data.part(0),
        (*part.notes, *seen.notes(head.encoder, found.contents)),
    )


def _compared(
    job: Job,
    frozen: Floats,
    adapted: Floats,
    y: Ints,
    groups: Sequence[str] | None,
    part: str,
    notes: tuple[str, ...],
) -> Comparison:
    old, new = softmax(frozen), softmax(adapted)
    reports = [
        evaluated(
            probabilities,
            y,
            groups,
            job.train.classes,
            head=head,
            encoder=job.record.label(),
            part=part,
            settings={},
            notes=notes,
        )
        for probabilities, head in ((old, "linear"), (new, f"{job.how.how}, adapted"))
    ]
    return Comparison(
        reports[0],
        reports[1],
        difference(balanced_accuracy, old, new, y, groups),
        difference(auroc, old, new, y, groups),
        np.stack([old, new]),
    )


def _taken(groups: tuple[str, ...] | None, rows: Ints) -> list[str] | None:
    return None if groups is None else [groups[row] for row in rows]
