"""Checkpoints: torch.distributed.checkpoint folders that appear whole or not at all, the newest two kept."""

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
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pathencoder.errors import ConfigError, IncompatibleWeights, StoreError
from pathencoder.state_dicts import Differences, shapes_of
from training import config, distributed

KEEP = 2
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def save(
    run: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> Path:
    """Write run/checkpoints/step-XXXXXXXX.

    method, optimiser, the step to go on with, and the settings that results depend on.

    All processes call it together. Raises StoreError when there is no space left: older checkpoints
    are as they were then.
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
        _quietly(dcp.save, state, partial)
        if distributed.rank() == 0:
            (partial / "run.json").write_text(
                json.dumps({"step": step, "settings": settings}, indent=1)
            )
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            for old in sorted((run / "checkpoints").glob("step-*"))[:-KEEP]:
                shutil.rmtree(old)
        _wait()
    return final


def path_of(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    return max((p.parent for p in (run / "checkpoints").glob("step-*/run.json")), default=None)


def load(
    path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int:
    """Fill method and optimiser; returns the step to go on with.

    Raises ConfigError listing the settings that differ.
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
    """Fill method, heads and optimiser from another run's newest checkpoint, or from one checkpoint; rates stay this run's.

    Raises ConfigError when there is none, or it is of another method or architecture; IncompatibleWeights naming what has another shape.
    """
    path = place if (place / "run.json").is_file() else latest(place)
    if path is None:
        raise ConfigError(
            f"start_from {str(place)!r} is neither a run with a checkpoint nor a checkpoint"
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
    _quietly(dcp.load, state, path)  # in place
    set_state_dict(
        method, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
    )


def _refuse_other_shapes(path: Path, own: dict[str, Any]) -> None:
    stored = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
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
    """Inside: whatever goes wrong, no half-written folder stays; a full disk is said."""
    try:
        yield
    # what torch raises when a file cannot be written is no Exception
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
    good = f"the last good checkpoint, {kept}, is kept" if kept else "there is no older checkpoint"
    return (
        f"no space left in {run} for a checkpoint of {needed / 1e6:.1f} MB ({free / 1e6:.1f} MB are"
        f" free); {good}. Free some space and give the same command: the run goes on from there"
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
    # it warns that no process group is there, which is so with one process
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
