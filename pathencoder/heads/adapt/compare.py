"""The frozen linear head beside the adapted encoder: on folds, and on a held-out part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads import judge
from pathencoder.heads.adapt import seen
from pathencoder.heads.adapt.fit import Fitted, Job, fit, linear_settings
from pathencoder.heads.adapt.learner import embeddings
from pathencoder.heads.adapt.report import Comparison, auroc, balanced_accuracy, difference
from pathencoder.heads.adapt.train import Steps
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.classifier import Classifier
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.embed import embed
from pathencoder.heads.linear import Linear
from pathencoder.heads.report import evaluated
from pathencoder.heads.rows import Floats, Ints, Model, softmax


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


def on_held_out(job: Job, head: Classifier, data: Dataset, *, cache: bool) -> Comparison:
    """On a held-out part: both were fitted on the train part.

    Raises:
        ConfigError: It has a class that the train part lacks.
        ImageError: An image cannot be read.
    """
    if unknown := sorted(set(data.classes) - set(job.train.classes)):
        raise ConfigError(
            f"the train part has the classes {', '.join(job.train.classes)}, not"
            f" {', '.join(unknown)}: evaluate on these classes"
        )
    names = [data.name(row) for row in range(len(data))]
    logits: list[Floats] = []
    heads = cast("Model", Linear.fit(job.rows, linear_settings(job.rows))), head.model
    readers = (job.encoder, job.record), (head.encoder, head.record)
    contents: list[bytes] = []
    for model, (encoder, record) in zip(heads, readers, strict=True):
        keeps = cache and encoder is job.encoder  # each adaptation has rows of its own
        found = embed(
            encoder,
            record,
            data.images,
            names,
            cache=FeatureCache.default() if keeps else None,
            progress=False,
        )
        for error in found.errors.values():
            raise error
        contents = found.contents
        logits.append(model.logits(found.rows.astype(np.float64)))
    y = np.array([job.train.classes.index(label) for label in data.labels])
    said = tuple(seen.notes(head.encoder, contents))
    return _compared(job, logits[0], logits[1], y, data.groups, data.part(0), said)


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
