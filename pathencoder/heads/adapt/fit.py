"""One adaptation on given rows: a linear head to begin with, the steps, and a head at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.encoder import Encoder
from pathencoder.heads import calibration
from pathencoder.heads.adapt import checkpoint as checkpoints
from pathencoder.heads.adapt.learner import Learner, embeddings
from pathencoder.heads.adapt.lora import Adapter
from pathencoder.heads.adapt.options import Options
from pathencoder.heads.adapt.tiles import Tiles
from pathencoder.heads.adapt.train import Epoch, Steps, Task, train
from pathencoder.heads.data.dataset import Dataset
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.folds import NoFolds, grouped_folds
from pathencoder.heads.linear import Linear, LinearOptions
from pathencoder.heads.rows import Floats, Ints, Rows

_CS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_SCARCE_C = 0.01  # of the linear head where folds cannot choose it


@dataclass(frozen=True)
class Job:
    """What every fit of an adaptation shares.

    Attributes:
        encoder: The parent.
        record: How it is read.
        train: The train part.
        rows: Its frozen embeddings with their classes.
        contents: The content hash of each image.
        tiles: Its pixels.
        how: The settings.
        checkpoint: Folder of checkpoints; None: none are written.
    """

    encoder: Encoder
    record: EncoderRecord
    train: Dataset
    rows: Rows
    contents: list[bytes]
    tiles: Tiles
    how: Options
    checkpoint: Path | None


@dataclass(frozen=True)
class Fitted:
    """An adapted encoder with its head.

    Attributes:
        encoder: The encoder, adapters merged.
        head: A linear head on its embeddings of all rows; without rows that end the training, the
            layer that was trained along.
        c: The penalty of the head; None for the layer.
        adapter: Its files, for LoRA.
        begin: The linear head on frozen embeddings of the same rows.
        stop: Rows whose loss ended the training.
        logits: Scores of these rows.
        epochs: As they were run.
        counts: How many numbers were trained, and how many the encoder has.
    """

    encoder: Encoder
    head: Linear
    c: float | None
    adapter: Adapter | None
    begin: Linear
    stop: Ints
    logits: Floats
    epochs: tuple[Epoch, ...]
    counts: tuple[int, int]

    def temperature(self, rows: Rows) -> float:
        """Of the head's scores, by the rows that ended the training; 1 without any."""
        if not len(self.stop):
            return 1.0
        return calibration.temperature(self.logits, rows.y[self.stop], rows.weights[self.stop])


def fit(job: Job, chosen: Ints, number: int, steps: Steps | None = None) -> Fitted:
    """Adapt the encoder on some rows of the train part.

    Args:
        job: What is shared.
        chosen: Rows; a fold by group of them ends the training.
        number: Of the checkpoint.
        steps: As for `train`.

    Returns:
        The adapted encoder and its head.

    Raises:
        ConfigError: The network cannot be trained in this way, or the loss is not a number.
    """
    rows = job.rows.take(chosen)
    try:
        within, held = grouped_folds(rows.y, rows.groups, seed=job.how.seed)[0]
    except NoFolds:
        within, held = np.arange(len(chosen)), np.arange(0)
    fitted = rows.take(within)
    begin = Linear.fit(fitted, linear_settings(fitted))
    learner = Learner(job.encoder, begin, job.how)
    task = Task(job.tiles, job.rows.y, job.rows.weights, chosen[within], chosen[held])
    kept = checkpoints.checkpoint_of(job.checkpoint, number, _key(job, chosen))
    epochs = train(learner, task, kept, steps)
    counts, head = learner.counts, learner.layer.head()
    encoder, adapter = learner.finished()
    c, logits = None, np.zeros((0, rows.classes))
    if len(held):
        x = embeddings(encoder, job.tiles, chosen)
        adapted = dataclasses.replace(rows, x=x)
        c, logits = _penalty(adapted.take(within), adapted.take(held))
        head = Linear.fit(adapted, {"c": c})
    return Fitted(encoder, head, c, adapter, begin, task.stop, logits, epochs, counts)


def _penalty(fitted: Rows, held: Rows) -> tuple[float, Floats]:
    """The C with the least loss on rows that were not trained on, and their scores with it.

    Folds cannot choose it: the encoder has seen the labels of the other rows.
    """
    found: list[tuple[float, float, Floats]] = []
    for c in _CS:
        logits = Linear.fit(fitted, {"c": c}).logits(held.x)
        found.append((calibration.log_loss(logits, held.y, held.weights), c, logits))
    _, best, scores = min(found, key=lambda one: one[0])
    return best, scores


def linear_settings(rows: Rows) -> dict[str, float]:
    """The C of the linear head that folds choose, or a strong penalty where none are possible."""
    try:
        return Linear.choose(rows, LinearOptions())
    except NoFolds:
        return {"c": _SCARCE_C}


def _key(job: Job, chosen: Ints) -> str:
    weights = job.rows.class_weights
    return checkpoints.key_of(
        job.record.digest,
        job.record.transform,
        job.record.image_mpp,
        job.how,
        job.train.labels,
        job.rows.groups.tolist(),
        None if weights is None else weights.tolist(),
        chosen.tolist(),
        contents=job.contents,
    )


def shifted(steps: Steps | None, number: int, fits: int) -> Callable[[int, int], None]:
    """The steps of one of several fits as steps of all."""

    def report(done: int, most: int) -> None:
        if steps is not None:
            steps(number * most + done, fits * most)

    return report
