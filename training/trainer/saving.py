"""Write the checkpoints of a run, whole or not at all, in the background if asked.

A checkpoint is written to a hidden folder, which gets its name when every process is done. The
newest two are kept, and milestones.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict

from pathencoder.errors import StoreError
from training import distributed
from training.files import write_text
from training.provenance import saved_steps
from training.trainer import checkpoint

log = logging.getLogger("training")

_KEEP = 2
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Saver:
    """Writes the checkpoints of a run; all processes must call its functions together.

    Args:
        run: The run's folder.
        keep_every: Checkpoints of multiples of this step are never removed; 0: all are.
        background: Copy the state to memory and write it while the run goes on. An error is then
            raised by the next call.
    """

    def __init__(self, run: Path, *, keep_every: int = 0, background: bool = False) -> None:
        self._run, self._keep_every = run, keep_every
        self._thread = ThreadPoolExecutor(1, "checkpoints") if background else None
        # of its own, so that its messages do not mix with those of the steps
        self._group = dist.new_group(backend="gloo") if background and _several() else None
        self._begun: Future[None] | None = None
        if self._thread and not _several():  # `quietly` does not reach torch's own thread
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    def save(
        self,
        step: int,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        about: dict[str, Any],
    ) -> None:
        """Write run/checkpoints/step-XXXXXXXX, after the one before it is written.

        Args:
            step: The step that a resumed run starts with.
            method: The method.
            optimizer: Its optimiser.
            about: For its run.json: the settings that the result depends on, the provenance.

        Raises:
            StoreError: No space is left. Older checkpoints are unchanged.
        """
        self.wait()
        model_state, optimizer_state = get_state_dict(method, optimizer)
        state = {"method": model_state, "optimizer": optimizer_state}
        self._prepare(step, _bytes(state), {"step": step, **about})
        partial, needed = saved_steps.partial_path_of(self._run, step), _bytes(state)
        if self._thread is None:
            self._begun = _done(lambda: self._finish(step, needed, _write(state, partial)))
            self.wait()
            return
        written = _write_in_background(state, partial, self._group)
        self._begun = self._thread.submit(self._finish, step, needed, written)

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            StoreError: No space was left for it. Older checkpoints are unchanged.
        """
        begun, self._begun = self._begun, None
        if begun is None:
            return
        error = begun.exception()
        # the renaming fails in the first process only
        problem = distributed.from_first(str(error) if error else "")
        if error:
            raise error
        if problem:
            raise StoreError(f"process 0: {problem}")

    def close(self) -> None:
        """Wait for the last checkpoint, when the run ends by an error; another one is logged."""
        begun, self._begun = self._begun, None
        if begun and (error := begun.exception()):
            log.error("the last checkpoint was not written: %s", error)
        if self._thread:
            self._thread.shutdown()

    def _prepare(self, step: int, needed: int, about: dict[str, Any]) -> None:
        """Make the hidden folder; all processes raise the error of the first one."""
        problem, partial = "", saved_steps.partial_path_of(self._run, step)
        if distributed.rank() == 0:
            try:
                with _whole_or_not(partial, self._run, needed=needed):
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                    _refuse_small_disk(partial, needed)
                    write_text(partial / "run.json", json.dumps(about, indent=1))
            except StoreError as error:
                problem = str(error)
        if problem := distributed.from_first(problem):
            raise StoreError(problem)

    def _finish(self, step: int, needed: int, written: Callable[[], object]) -> None:
        """Wait until every process has written its part; then the checkpoint gets its name."""
        partial = saved_steps.partial_path_of(self._run, step)
        with _whole_or_not(partial, self._run, needed=needed):
            written()
            if distributed.rank() != 0:
                return
            final = saved_steps.path_of(self._run, step)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            for old in saved_steps.newest_first(self._run)[_KEEP:]:
                if not (self._keep_every and saved_steps.step_of(old) % self._keep_every == 0):
                    shutil.rmtree(old)


def _write(state: dict[str, Any], partial: Path) -> Callable[[], object]:
    return lambda: checkpoint.quietly(state_dict_saver.save, state, partial)


def _write_in_background(
    state: dict[str, Any], partial: Path, group: dist.ProcessGroup | None
) -> Callable[[], object]:
    """Copy the state to memory; returns the function that waits until the copy is written."""
    started = checkpoint.quietly(state_dict_saver.async_save, state, partial, process_group=group)
    # newer versions of torch return two futures if the copy is made in the background, too
    written: Future[object] = getattr(started, "upload_completion", started)
    return written.result


def _done(act: Callable[[], None]) -> Future[None]:
    """The result of a function, or its error, as of one that was called in a thread."""
    done = Future[None]()
    try:
        act()
    # torch's CheckpointException, for a file that cannot be written, is not an Exception
    except (Exception, CheckpointException) as error:
        done.set_exception(error)
    else:
        done.set_result(None)
    return done


@contextmanager
def _whole_or_not(partial: Path, run: Path, *, needed: int) -> Iterator[None]:
    """Remove the partial folder if the block fails; a full disk becomes a StoreError."""
    try:
        yield
    except BaseException as error:
        free = shutil.disk_usage(run).free
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, StoreError) or not (_is_full(error) or free < needed):
            raise
        raise StoreError(_disk_is_full(run, needed, free)) from error


def _refuse_small_disk(partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial).free
    if free < 1.02 * needed:
        raise StoreError(_disk_is_full(partial.parents[1], needed, free))


def _disk_is_full(run: Path, needed: int, free: int) -> str:
    kept = saved_steps.latest(run)
    good = f"the last good checkpoint, {kept}, is kept" if kept else "no older checkpoint exists"
    return (
        f"no space left in {run} for a checkpoint of {needed / 1e6:.1f} MB ({free / 1e6:.1f} MB are"
        f" free); {good}. Free some space and run the same command: the run resumes from there"
    )


def _is_full(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    # torch's CheckpointException: {rank: (error, traceback)}
    failures = getattr(error, "failures", {})
    return any(_is_full(f[0]) for f in failures.values()) or (
        error is not None and _is_full(error.__cause__)
    )


def _bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    return sum(map(_bytes, state.values())) if isinstance(state, dict) else 0


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()
