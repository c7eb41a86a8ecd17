"""Checkpoints: folders of torch.distributed.checkpoint, written whole or not at all.

The newest two are kept, and milestones. A damaged one is set aside, and the one before it is used.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pathencoder.errors import ConfigError, IncompatibleWeights, StoreError
from pathencoder.state_dicts import Differences, shapes_of
from training import distributed
from training.files import write_text
from training.trainer.changes import changes

log = logging.getLogger("training")

_KEEP = 2
_NAME = "step-"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def save(
    run: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
    *,
    keep_every: int = 0,
    provenance: dict[str, Any],
) -> Path:
    """Write run/checkpoints/step-XXXXXXXX; all processes must call it together.

    Args:
        run: The run's folder.
        step: The step that a resumed run starts with.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings that the result depends on.
        keep_every: Checkpoints of multiples of this step are never removed; 0: all are.
        provenance: The record of the run, as plain values.

    Returns:
        The checkpoint.

    Raises:
        StoreError: No space is left. Older checkpoints are unchanged.
    """
    final = path_of(run, step)
    partial = final.with_name(f".{final.name}.incomplete")
    model_state, optimizer_state = get_state_dict(method, optimizer)
    state = {"method": model_state, "optimizer": optimizer_state}
    with _whole_or_not(partial, run, needed=_bytes(state)):
        if distributed.rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _refuse_small_disk(partial, _bytes(state))
        _wait()
        _quietly(state_dict_saver.save, state, partial)
        if distributed.rank() == 0:
            about = {"step": step, "settings": settings, "provenance": provenance}
            write_text(partial / "run.json", json.dumps(about, indent=1))
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            for old in _newest_first(run)[_KEEP:]:
                if not (keep_every and _step_of(old) % keep_every == 0):
                    shutil.rmtree(old)
        _wait()
    return final


def path_of(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"{_NAME}{step:08d}"


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run; None without one."""
    return next((p for p in _newest_first(run) if (p / "run.json").is_file()), None)


def resume(
    run: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int | None:
    """Load the newest checkpoint that is not damaged; all processes must call it together.

    Damaged ones that are newer are renamed to damaged-step-XXXXXXXX, and the log says so.

    Args:
        run: The run's folder.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings of the run; they must be those of the checkpoint.

    Returns:
        The step to start with; None if the run has no checkpoint.

    Raises:
        ConfigError: Settings differ. The message lists them.
        IncompatibleWeights: Names or shapes of weights differ.
        StoreError: There are checkpoints, and all are damaged.
    """
    found = [run / "checkpoints" / name for name in distributed.from_first(_names(run))]
    step, damaged = _first_good(found, lambda path: load(path, method, optimizer, settings))
    if step is None and damaged:
        raise StoreError(
            f"no checkpoint of {run} can be read: {'; '.join(damaged.values())}. Copy one back from"
            " a backup, or begin again in another folder (out=)"
        )
    if distributed.rank() == 0:
        for path, problem in damaged.items():
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
            log.warning("%s: kept as %s; the run resumes from step %s", problem, aside.name, step)
    return step


def load(
    path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """Load a checkpoint of the same run into method and optimiser.

    Args:
        path: The checkpoint.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings of the run; they must be those of the checkpoint.

    Returns:
        The step to start with.

    Raises:
        ConfigError: Settings differ. The message lists them.
        IncompatibleWeights: Names or shapes of weights differ.
        StoreError: The checkpoint is damaged.
    """
    meta = _about(path)
    if different := changes(meta["settings"], settings, int(meta["step"])):
        raise ConfigError(
            f"{path} was made with other settings: {'; '.join(different)}. Give another out=, or"
            " the same settings"
        )
    _fill(path, method, optimizer)
    return int(meta["step"])


def start_from(
    place: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> None:
    """Load the state of another run into method and optimiser; learning rates are not loaded.

    Args:
        place: The other run's folder, of which the newest good checkpoint is used, or a
            checkpoint.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings of this run.

    Raises:
        ConfigError: There is no checkpoint, or it is of another method or architecture.
        IncompatibleWeights: Names or shapes of weights differ.
        StoreError: Every checkpoint is damaged.
    """
    names = distributed.from_first(_names(place))
    found = [place / "checkpoints" / name for name in names] or [place]
    if not names and not (place / "run.json").is_file():
        raise ConfigError(
            f"start_from {str(place)!r} is neither a run with a checkpoint nor a checkpoint: give"
            " the folder of one"
        )
    done, damaged = _first_good(found, lambda path: _start(path, method, optimizer, settings))
    if done is None:
        raise StoreError(
            f"start_from {str(place)!r}: no checkpoint can be read: {'; '.join(damaged.values())}."
            " Give another one"
        )
    for problem in damaged.values():
        log.warning("start_from: %s; step %s is used instead", problem, done)


def _start(
    path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """`start_from` for one checkpoint; returns its step."""
    meta = _about(path)
    theirs = meta["settings"]
    for section, name in (("method", "name"), ("backbone", "architecture")):
        there, here = theirs.get(section, {}).get(name), settings[section][name]
        if there != here:
            raise ConfigError(
                f"start_from {path}: its {section}.{name} is {there!r}, this run's is {here!r}:"
                " they must be the same"
            )
    rates = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    _fill(path, method, optimizer)
    for group, own in zip(optimizer.param_groups, rates, strict=True):
        group.update(own)
    return int(meta["step"])


def _first_good(
    found: Sequence[Path], act: Callable[[Path], int]
) -> tuple[int | None, dict[Path, str]]:
    """Act on checkpoints until one is not damaged.

    Returns:
        What `act` returned, None without a good one; the damaged ones before it, with what is
        wrong.
    """
    damaged: dict[Path, str] = {}
    for path in found:
        problem = distributed.from_first(_damage(path) if distributed.rank() == 0 else None)
        try:
            if problem:
                raise StoreError(f"{path} is damaged ({problem})")
            return act(path), damaged
        except StoreError as error:
            damaged[path] = str(error)
    return None, damaged


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, as far as its description and sizes of files show."""
    try:
        _about(path)
        stored = FileSystemReader(path).read_metadata().storage_data.values()
        ends: dict[str, int] = {}
        for part in stored:
            name = part.relative_path
            ends[name] = max(ends.get(name, 0), part.offset + part.length)
        for name, end in sorted(ends.items()):
            if not (path / name).is_file():
                return f"{name} is missing"
            if (path / name).stat().st_size < end:
                return f"{name} has {(path / name).stat().st_size} of {end} bytes"
    except StoreError as error:
        return str(error)
    # .metadata is a pickle: bytes that are not one raise almost anything
    except Exception as error:
        return f"its .metadata cannot be read: {type(error).__name__}: {error}"
    return None


def _about(path: Path) -> dict[str, Any]:
    """The step and the settings of a checkpoint.

    Raises:
        StoreError: They cannot be read.
    """
    try:
        meta: dict[str, Any] = json.loads((path / "run.json").read_text())
        return {"step": int(meta["step"]), "settings": dict(meta["settings"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"its run.json cannot be read: {error}") from error


def _names(run: Path) -> list[str]:
    """The names of a run's checkpoints, also of damaged ones, the newest first."""
    return [p.name for p in _newest_first(run)]


def _newest_first(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob(f"{_NAME}[0-9]*"), key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_NAME))


def _fill(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model_state, optimizer_state = get_state_dict(method, optimizer)
    state = {"method": model_state, "optimizer": optimizer_state}
    _refuse_other_shapes(path, model_state)
    try:
        _quietly(state_dict_loader.load, state, path)  # in place
    # it is not an Exception; every process gets it
    except CheckpointException as error:
        causes = "; ".join(sorted({str(e) for e, _ in error.failures.values()}))
        raise StoreError(f"{path} is damaged ({causes})") from error
    set_state_dict(
        method, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
    )


def _refuse_other_shapes(path: Path, own: dict[str, Any]) -> None:
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    theirs = {
        k.removeprefix("method."): tuple(getattr(m, "size", ()))
        for k, m in stored.items()
        if k.startswith("method.")
    }
    if differences := Differences(theirs, shapes_of(own)):
        raise IncompatibleWeights(
            f"{path} does not fit this method: {differences}. Give the method the same heads"
        )


@contextmanager
def _whole_or_not(partial: Path, run: Path, *, needed: int) -> Iterator[None]:
    """Remove the partial folder if the block fails; a full disk becomes a StoreError."""
    try:
        yield
    # torch's CheckpointException, for a file that cannot be written, is not an Exception
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
    kept = latest(run)
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


def _wait() -> None:
    if distributed.world() > 1:
        dist.barrier()


def _quietly(act: Any, state: dict[str, Any], path: Path) -> None:
    # with one process it warns that there is no process group
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        act(state, checkpoint_id=str(path))
