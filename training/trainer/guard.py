"""Batches whose loss or gradient is not finite: skipped and kept; several stop the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pathencoder.errors import PathEncoderError
from pathencoder.files import whole_file
from training import distributed
from training.data.loader import TileBatch
from training.data.tiles import Corpus
from training.provenance import saved_steps

log = logging.getLogger(__name__)

_MOST_FILES = 20  # a run with many bad batches must not fill the disk


class Guard:
    """Undoes what the forward pass of a bad batch changed.

    It keeps a copy of the method's buffers (running statistics, centres), which a forward pass
    updates.

    Args:
        method: The method.
        folder: The run's folder; bad batches are written to its bad_batches/.
        in_a_row: Consecutive bad batches that stop the run.
    """

    def __init__(self, method: nn.Module, folder: Path, *, in_a_row: int) -> None:
        self._method, self._folder, self._limit = method, folder / "bad_batches", in_a_row
        self._buffers = list(method.buffers())
        self._before = [b.detach().clone() for b in self._buffers]
        self._count = 0

    @torch.no_grad()
    def remember(self) -> None:
        """Copy the buffers; called before a step."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    @property
    def bad_in_a_row(self) -> int:
        """The number of bad batches since the last good one."""
        return self._count

    def passed(self) -> None:
        """Note that the step was good."""
        self._count = 0

    @torch.no_grad()
    def refuse(
        self, step: int, batch: TileBatch, corpus: Corpus, culprit: str, values: str
    ) -> None:
        """Restore the buffers, drop the gradients and keep the batch.

        Args:
            step: The step.
            batch: Its batch.
            corpus: The tiles, for their keys.
            culprit: What was not finite first.
            values: Loss and gradient norm in words.

        Raises:
            PathEncoderError: Too many bad batches in a row.
        """
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        for p in self._method.parameters():
            p.grad = None
        self._count += 1
        kept = self._keep(step, batch, corpus, culprit)
        log.warning(
            "step %d skipped: %s; first not finite: %s. The weights are unchanged; the batch is"
            " kept in %s",
            step,
            values,
            culprit,
            kept,
        )
        if self._count >= self._limit:
            raise PathEncoderError(
                f"{self._count} batches in a row gave no finite loss or gradient (step {step}:"
                f" {values}); first not finite: {culprit}. {self._way_back()}. Look at {kept}, and"
                " lower optim.lr or optim.clip, or set optim.precision=fp32: the run resumes also"
                " with these"
            )

    def _way_back(self) -> str:
        newest = saved_steps.latest(self._folder.parent)
        return (
            f"The last checkpoint, {newest}, is of before them" if newest else "No checkpoint yet"
        )

    def _keep(self, step: int, batch: TileBatch, corpus: Corpus, culprit: str) -> Path:
        self._folder.mkdir(exist_ok=True)
        file = self._folder / f"step-{step:08d}-process-{distributed.rank()}.npz"
        if len(list(self._folder.iterdir())) < _MOST_FILES:
            keys = np.array([corpus.tiles.key(int(i)) for i in batch.indices])
            tiles, stains, indices = (
                t.cpu().numpy() for t in (batch.tiles, batch.stains, batch.indices)
            )
            with whole_file(file) as temporary, temporary.open("wb") as stream:
                np.savez(
                    stream,
                    keys=keys,
                    tiles=tiles,
                    stains=stains,
                    indices=indices,
                    first_not_finite=np.array(culprit),
                )
        return file


@torch.no_grad()
def first_not_finite(method: Any, forward: Callable[[], Any]) -> str:
    """Find where values stopped being finite, by repeating a forward pass.

    Args:
        method: The method, with the gradients of the bad step.
        forward: Repeats the forward pass.

    Returns:
        In words, the first of: a weight that is not finite; a module whose output is not finite
        from finite inputs; the last module, in the order of the method, whose gradient is not
        finite, as the backward pass starts there; the loss.
    """
    for name, p in method.named_parameters():
        if not _finite(p):
            return f"weights {name}"
    found: list[str] = []
    handles = [
        m.register_forward_hook(_look(found, name), with_kwargs=True)
        for name, m in method.named_modules()
        if name
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    bad = [
        name for name, p in method.named_parameters() if p.grad is not None and not _finite(p.grad)
    ]
    return (
        f"the gradient of {bad[-1]}" if bad else "the loss itself (all modules gave finite values)"
    )


def _look(found: list[str], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not found and not _all_finite(output):
            found.append(
                f"module {name}" if _all_finite((args, kwargs)) else f"the input of {name}"
            )

    return hook


def _all_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return _finite(value)
    if isinstance(value, dict):
        value = tuple(value.values())
    return all(_all_finite(v) for v in value) if isinstance(value, tuple | list) else True


def _finite(x: Tensor) -> bool:
    return bool(x.isfinite().all()) if x.is_floating_point() else True


@dataclass(frozen=True)
class Verdict:
    """The result of a backward pass over all processes.

    Attributes:
        finite: Loss and gradient are finite in every process.
        stop: At least one process was asked to stop.
    """

    finite: bool
    stop: bool


def agree(loss: Tensor, norm: Tensor, *, stop: bool) -> Verdict:
    """Exchange the results of a backward pass between all processes, in one small collective.

    Its result is the one value that a step reads from the device before the optimiser's step.

    Args:
        loss: This process's loss, a scalar.
        norm: Its gradient norm, a scalar.
        stop: Whether this process was asked to stop.

    Returns:
        The same value in every process.
    """
    bad = (loss.isfinite() & norm.isfinite()).logical_not().float()
    flags = torch.stack([bad, torch.full_like(bad, float(stop))])
    not_finite, stops = distributed.mean(flags).tolist()
    return Verdict(finite=not not_finite, stop=bool(stops))
