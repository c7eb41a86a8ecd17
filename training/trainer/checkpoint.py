"""Checkpoints: folders of torch.distributed.checkpoint, written whole or not at all.

The newest two are kept.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pathencoder.errors import ConfigError, IncompatibleWeights, StoreError
from pathencoder.state_dicts import Differences, shapes_of
from training import config, distributed
from training.files import write_text

_KEEP = 2
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def save(
    run: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> Path:
    """Write run/checkpoints/step-XXXXXXXX; all processes must call it together.

    Args:
        run: The run's folder.
        step: The step that a resumed run starts with.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings that the result depends on.

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
            text = json.dumps({"step": step, "settings": settings}, indent=1)
            write_text(partial / "run.json", text)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            for old in sorted((run / "checkpoints").glob("step-*"))[:-_KEEP]:
                shutil.rmtree(old)
        _wait()
    return final


def path_of(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run; None without one."""
    return max((p.parent for p in (run / "checkpoints").glob("step-*/run.json")), default=None)


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
    """
    meta = json.loads((path / "run.json").read_text())
    different = sorted(_differences(config.with_defaults(meta["settings"]), settings))
    if different:
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
        place: The other run's folder, of which the newest checkpoint is used, or a checkpoint.
        method: The method.
        optimizer: Its optimiser.
        settings: The settings of this run.

    Raises:
        ConfigError: There is no checkpoint, or it is of another method or architecture.
        IncompatibleWeights: Names or shapes of weights differ.
    """
    path = place if (place / "run.json").is_file() else latest(place)
    if path is None:
        raise ConfigError(
            f"start_from {str(place)!r} is neither a run with a checkpoint nor a checkpoint: give"
            " the folder of one"
        )
    theirs = json.loads((path / "run.json").read_text())["settings"]
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


def _fill(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model_state, optimizer_state = get_state_dict(method, optimizer)
    state = {"method": model_state, "optimizer": optimizer_state}
    _refuse_other_shapes(path, model_state)
    _quietly(state_dict_loader.load, state, path)  # in place
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


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return [
            d
            for k in keys
            for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)
        ]
    return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
