"""Compare the settings of a run with those of its checkpoint."""

from __future__ import annotations

import logging
import os
from typing import Any

from training import config

log = logging.getLogger("training")

# Settings that hold a path: the same file by another name is no change.
_PATHS = (
    ("data", "root"),
    ("data", "slides"),
    ("", "start_from"),
    ("backbone", "start"),
    ("method", "teachers"),
)
_MAY_FALL = ("lr", "lr_end", "head_lr", "clip")


def changes(old: dict[str, Any], new: dict[str, Any], step: int) -> list[str]:
    """The settings with which a run cannot go on from a checkpoint, each with both values.

    The steps of a run with a constant rate may change, as long as its cooldown is still to come.
    What `accepted` finds may change too.

    Args:
        old: Those of the checkpoint that the result depends on.
        new: Those of the run.
        step: Steps that are done.
    """
    found = differences(old, new)
    old = config.with_defaults(old)
    words = found.pop("optim.steps", None)
    if words and (refused := _why_not_steps(old["optim"], new["optim"], step)):
        found["optim.steps"] = f"{words} ({refused})"
    calmer = accepted(old, new)
    return sorted(text for text in found.values() if text not in calmer)


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """The settings that differ, by name, in words with both values; arguments as of `changes`."""
    return _differences(_with_real_paths(config.with_defaults(old)), _with_real_paths(new))


def accepted(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The changes that messages about a diverging run ask for, each with both values.

    Lower learning rates, a lower norm of gradients, and fp32. `auto` of an older checkpoint, which
    does not say what it chose, may be either precision.

    Args:
        old: The settings of the checkpoint that the result depends on.
        new: Those of the run, with the precision that is used.
    """
    before, now = config.with_defaults(old).get("optim", {}), new.get("optim", {})
    lower = [k for k in _MAY_FALL if k in before and k in now and now[k] < before[k]]
    precise = before.get("precision") != now.get("precision") and (
        now.get("precision") == "fp32" or before.get("precision") == "auto"
    )
    changed = [*lower, *(["precision"] if precise else [])]
    return [f"optim.{k} was {before[k]!r}, is {now[k]!r}" for k in changed]


def _why_not_steps(old: dict[str, Any], new: dict[str, Any], step: int) -> str | None:
    """Why the number of steps may not change; None if it may."""
    if new["schedule"] != "constant":
        return (
            f"the cosine ends at step {old['steps']}. Train on in a new run that starts from this"
            " one: start_from=; or use optim.schedule=constant, whose steps may change"
        )
    then, now = (config.OptimSettings.model_validate(o) for o in (old, new))
    if step > now.steps - now.cooldown_steps:
        least = step + now.cooldown_steps
        return f"step {step} lies in the new cooldown: give at least {least} steps"
    if step > then.steps - then.cooldown_steps:
        log.warning(
            "step %d lies in the cooldown of the %d steps so far: the learning rate rises again."
            " A checkpoint from before the cooldown would suit better",
            step,
            then.steps,
        )
    return None


def _with_real_paths(settings: dict[str, Any]) -> dict[str, Any]:
    out = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
    for section, key in _PATHS:
        inner = out.get(section, {}) if section else out
        if isinstance(value := inner.get(key), str):
            inner[key] = _real(value)
        elif isinstance(value, list):
            inner[key] = [_real(v) if isinstance(v, str) else v for v in value]
    return out


def _real(text: str) -> str:
    return os.path.realpath(text) if os.path.exists(text) else text


def _differences(old: Any, new: Any, path: str = "") -> dict[str, str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return {} if old == new else {path: f"{path} was {old!r}, is {new!r}"}
    found: dict[str, str] = {}
    for key in old.keys() | new.keys():
        found |= _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return found
