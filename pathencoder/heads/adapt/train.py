"""The steps of an adaptation: early stopping on a fold, and exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathencoder.errors import ConfigError
from pathencoder.heads.adapt.checkpoint import Checkpoint
from pathencoder.heads.adapt.learner import Learner, Weights
from pathencoder.heads.adapt.tiles import Tiles, batches
from pathencoder.heads.calibration import scaled_loss
from pathencoder.heads.rows import Floats, Ints
from pathencoder.runtime import is_out_of_memory

Steps = Callable[[int, int], None]  # steps done, steps at most
_WARM = 0.05  # share of the steps in which the rates rise


@dataclass(frozen=True)
class Task:
    """What is learnt from.

    Attributes:
        tiles: All images.
        y: Their class numbers [N].
        weights: The weight of each [N], 1 in the mean.
        fit: Rows to train on.
        stop: Rows of other groups, whose loss ends the training; without any, all epochs are run.
    """

    tiles: Tiles
    y: Ints
    weights: Floats
    fit: Ints
    stop: Ints


@dataclass(frozen=True)
class Epoch:
    """One pass over the images.

    Attributes:
        number: 0 is before the first step.
        loss: Mean over the batches; NaN for number 0.
        stop_loss: Log loss of the rows that end the training, after temperature scaling; NaN
            without any.
    """

    number: int
    loss: float
    stop_loss: float


@dataclass
class _Position:
    """Where a training is, and the best so far."""

    epoch: int = 1
    batch: int = 0  # the next one of the epoch
    total: float = 0.0  # of the losses of the epoch
    best: int = 0
    kept: Weights | None = None
    history: tuple[Epoch, ...] = ()
    ended: bool = False


def train(
    learner: Learner, task: Task, checkpoint: Checkpoint | None = None, steps: Steps | None = None
) -> tuple[Epoch, ...]:
    """Train until the loss of the stopping rows falls no longer; the best average is kept.

    Args:
        learner: It is changed.
        task: The images.
        checkpoint: The file of an interrupted run, which goes on there, and to which the state is
            written from time to time.
        steps: Called with the number of steps that are done, and that are done at most.

    Returns:
        The epochs, from before the first step on.

    Raises:
        ConfigError: The loss is not a number, or the weights that are kept are not finite.
        ImageError: An image cannot be read any more.
        StoreError: The checkpoint cannot be written.
    """
    each = math.ceil(len(task.fit) / learner.how.batch)
    report = steps or (lambda done, most: None)
    at = _resumed(learner, checkpoint)
    if not at.history:
        at.history = (Epoch(0, math.nan, _stop_loss(learner, task)),)
        at.kept = learner.average()
    report((at.epoch - 1) * each + at.batch, learner.how.epochs * each)
    while not at.ended:
        _epoch(learner, task, at, checkpoint, lambda done: report(done, learner.how.epochs * each))
        _judge(learner, task, at, each)
        if checkpoint is not None:
            checkpoint.write(_state(learner, at))
    if at.kept is not None:
        learner.load(at.kept)
    if not _is_finite(learner, task):
        raise _diverged(
            learner, f"the weights or scores of epoch {best_of(at.history)} are not finite"
        )
    return at.history


def best_of(history: tuple[Epoch, ...]) -> int:
    """The epoch whose weights are kept: that of the least loss, or the last."""
    losses = [epoch.stop_loss for epoch in history]
    return history[-1].number if math.isnan(losses[-1]) else int(np.argmin(losses))


def _epoch(
    learner: Learner,
    task: Task,
    at: _Position,
    checkpoint: Checkpoint | None,
    done: Callable[[int], None],
) -> None:
    """The batches of an epoch that are left."""
    how = learner.how
    each = math.ceil(len(task.fit) / how.batch)
    y, weights = torch.tensor(task.y), torch.tensor(task.weights, dtype=torch.float32)
    for rows, views in batches(task.tiles, task.fit, how.batch, how.seed, at.epoch, at.batch):
        number = (at.epoch - 1) * each + at.batch
        share = _share(number, how.epochs * each)
        value = _step(learner, views, y[rows], weights[rows], share)
        if not math.isfinite(value):
            raise _diverged(learner, f"the loss is {value} at step {number + 1} (epoch {at.epoch})")
        at.total += value
        at.batch += 1
        if checkpoint is not None and checkpoint.due:
            checkpoint.write(_state(learner, at))
        done(number + 1)


def _step(learner: Learner, views: Tensor, y: Tensor, weights: Tensor, share: float) -> float:
    """One step; returns the loss before it. No step is made where that is not a number."""
    try:
        loss = learner.loss(views, y, weights)
        value = float(loss.detach())
        if math.isfinite(value):
            learner.step(loss, share)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(y) == 1:
            raise
        raise ConfigError(
            f"{len(y)} images at a time do not fit into the memory of {learner.encoder.device}:"
            f" batch={len(y) // 2} may"
        ) from error
    return value


def _diverged(learner: Learner, what: str) -> ConfigError:
    return ConfigError(
        f"{what}: the training has diverged. Give a lower rate than"
        f" rate={learner.how.highest_rate:g} and head_rate={learner.how.head_rate:g}"
    )


def _is_finite(learner: Learner, task: Task) -> bool:
    """Whether what was trained can be used. The last step has no loss after it to tell."""
    if not all(bool(torch.isfinite(value).all()) for value in learner.trained):
        return False
    # rows that end the training had finite scores; finite weights alone may be too large for that
    return bool(len(task.stop) or np.isfinite(learner.logits(task.tiles, task.fit[:1])).all())


def _judge(learner: Learner, task: Task, at: _Position, each: int) -> None:
    """End an epoch: keep the weights where they are the best, and decide whether to go on."""
    how = learner.how
    at.history += (Epoch(at.epoch, at.total / each, _stop_loss(learner, task)),)
    best = best_of(at.history)
    if best == at.epoch:
        at.best, at.kept = best, learner.average()
    at.ended = at.epoch >= how.epochs or at.epoch - at.best >= how.patience
    at.epoch, at.batch, at.total = at.epoch + 1, 0, 0.0


def _stop_loss(learner: Learner, task: Task) -> float:
    if not len(task.stop):
        return math.nan
    with learner.averaged():
        logits = learner.logits(task.tiles, task.stop)
    if not np.isfinite(logits).all():  # diverged in the last step: the next one says so
        return math.inf
    return scaled_loss(logits, task.y[task.stop], task.weights[task.stop])


def _share(step: int, steps: int) -> float:
    """Share of the highest rates: a short rise, then half a cosine."""
    warm = max(1, round(_WARM * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _state(learner: Learner, at: _Position) -> dict[str, Any]:
    """Plain values and tensors. Random numbers follow from the position (tiles.batches)."""
    history = [[epoch.number, epoch.loss, epoch.stop_loss] for epoch in at.history]
    return {
        "learner": learner.state(),
        "position": {**vars(at), "history": history},
    }


def _resumed(learner: Learner, checkpoint: Checkpoint | None) -> _Position:
    """Put a saved state into the learner; the beginning without one."""
    state = None if checkpoint is None else checkpoint.read()
    if state is None:
        return _Position()
    learner.restore(state["learner"])
    kept = state["position"]
    return _Position(**{**kept, "history": tuple(Epoch(*values) for values in kept["history"])})
