"""Checkpoints: folders of torch.distributed.checkpoint; saving.py writes them.

A damaged one is set aside, and the one before it is used.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pathencoder.errors import ConfigError, IncompatibleWeights, StoreError
from pathencoder.state_dicts import Differences, shapes_of
from training import distributed
from training.provenance import saved_steps
from training.trainer.changes import changes

log = logging.getLogger("training")


def resume(
    run: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]
) -> int | None:
    """Load the newest checkpoint that is not damaged; all processes must call it together.

    Damaged ones that are newer are renamed to damaged-step-XXXXXXXX, and the log says so. What a
    killed run left of a checkpoint that it was writing is removed.

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
        for unfinished in saved_steps.unfinished(run):
            shutil.rmtree(unfinished, ignore_errors=True)
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
    meta = saved_steps.described(path)
    if different := changes(meta["settings"], settings, int(meta["step"])):
        raise ConfigError(
            f"{path} was made with other settings: {'; '.join(different)}. Give another out=, or"
            " the same settings"
        )
    _fill_with_own_rates(path, method, optimizer)
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
    meta = saved_steps.described(path)
    theirs = meta["settings"]
    for section, name in (("method", "name"), ("backbone", "architecture")):
        there, here = theirs.get(section, {}).get(name), settings[section][name]
        if there != here:
            raise ConfigError(
                f"start_from {path}: its {section}.{name} is {there!r}, this run's is {here!r}:"
                " they must be the same"
            )
    _fill_with_own_rates(path, method, optimizer)
    return int(meta["step"])


def _fill_with_own_rates(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the state; learning rates stay those of the run's settings."""
    rates = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    _fill(path, method, optimizer)
    for group, own in zip(optimizer.param_groups, rates, strict=True):
        group.update(own)


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
        saved_steps.described(path)
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


def _names(run: Path) -> list[str]:
    """The names of a run's checkpoints, also of damaged ones, the newest first."""
    return [p.name for p in saved_steps.newest_first(run)]


def _fill(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model_state, optimizer_state = get_state_dict(method, optimizer)
    state = {"method": model_state, "optimizer": optimizer_state}
    _refuse_other_shapes(path, model_state)
    try:
        quietly(state_dict_loader.load, state, path)  # in place
    # it is not an Exception; every process gets it
    except CheckpointException as error:
        causes = "; ".join(sorted({str(e) for e, _ in error.failures.values()}))
        raise StoreError(f"{path} is damaged ({causes})") from error
    set_state_dict(
        method, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state
    )


def _refuse_other_shapes(path: Path, own: dict[str, Any]) -> None:
    try:
        stored = FileSystemReader(path).read_metadata().state_dict_metadata
    # .metadata is a pickle: bytes that are not one raise almost anything
    except Exception as error:
        raise StoreError(f"{path} is damaged (its .metadata cannot be read: {error})") from error
    theirs = {
        k.removeprefix("method."): tuple(getattr(m, "size", ()))
        for k, m in stored.items()
        if k.startswith("method.")
    }
    if differences := Differences(theirs, shapes_of(own)):
        raise IncompatibleWeights(
            f"{path} does not fit this method: {differences}. Give the method the same heads"
        )


def quietly(act: Callable[..., Any], state: dict[str, Any], path: Path, **options: Any) -> Any:
    """Call torch's function for a checkpoint without its warnings."""
    # with one process it warns that there is no process group
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return act(state, checkpoint_id=str(path), **options)
