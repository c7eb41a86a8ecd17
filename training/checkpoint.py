"""Checkpoints: torch.distributed.checkpoint folders that appear whole or not at all, the newest two kept."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pathencoder.errors import ConfigError

KEEP = 2


def save(run: Path, step: int, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> Path:
    """Write run/checkpoints/step-XXXXXXXX: method, optimiser, the step to go on with, and the settings that results depend on."""
    final = run / "checkpoints" / f"step-{step:08d}"
    partial = final.with_name(f".{final.name}.incomplete")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model_state, optimizer_state = get_state_dict(method, optimizer)
    _quietly(dcp.save, {"method": model_state, "optimizer": optimizer_state}, partial)
    (partial / "run.json").write_text(json.dumps({"step": step, "settings": settings}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in _all(run)[:-KEEP]:
        shutil.rmtree(old)
    return final


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    return next(reversed(_all(run)), None)


def load(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, settings: dict[str, Any]) -> int:
    """Fill method and optimiser; returns the step to go on with. Raises ConfigError listing the settings that differ."""
    meta = json.loads((path / "run.json").read_text())
    different = sorted(_differences(meta["settings"], settings))
    if different:
        raise ConfigError(f"{path} was made with other settings: {'; '.join(different)}. Give another out=, or the same settings")
    model_state, optimizer_state = get_state_dict(method, optimizer)
    state = {"method": model_state, "optimizer": optimizer_state}
    _quietly(dcp.load, state, path)
    set_state_dict(method, optimizer, model_state_dict=state["method"], optim_state_dict=state["optimizer"])
    return int(meta["step"])


def _all(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"))


def _quietly(act: Any, state: dict[str, Any], path: Path) -> None:
    with warnings.catch_warnings():  # it warns that no process group is there, which is so with one process
        warnings.simplefilter("ignore")
        act(state, checkpoint_id=str(path))


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
