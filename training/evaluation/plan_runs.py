"""Whether the runs in a plan's folder are those that the plan asks for now."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.remote.objects import is_remote
from training import config
from training.backbones import make
from training.trainer.changes import differences

log = logging.getLogger("training")


def changed_settings(run: Path, recipe: Path, overrides: Sequence[str]) -> list[str]:
    """The settings of a run that its plan now gives another value.

    Args:
        run: Its folder.
        recipe: That of its arm.
        overrides: key=value, as for `config.load`.

    Returns:
        Each with both values; nothing for a run whose config.yaml is gone or cannot be compared.
    """
    before = _settings(run)
    if before is None:
        return []
    try:
        cfg = config.load(recipe, [*overrides, f"out={run}"])
        cfg = cfg.model_copy(update={"backbone": make.with_start(cfg.backbone)})
        config.check({**before, "run": {"out": "."}})
    except PathEncoderError as error:
        log.warning("whether %s has the settings of the plan is not known: %s", run, error)
        return []
    found = differences(before, config.result_changing(config.dump(cfg)))
    for key in ("data.root", "data.slides"):
        place = before.get("data", {}).get(key.partition(".")[2])
        if key in found and place and not _is_here(str(place)):
            log.warning("%s: %s, which is not here: taken for the same tiles", run, found.pop(key))
    return [found[key] for key in sorted(found)]


def folder_for(plain: Path, root: str) -> Path:
    """The folder of a plan's results on the tiles of a root.

    Args:
        plain: The folder by the last name of the root, which other roots may have too.
        root: A folder, or a URL.

    Returns:
        `plain`; where it has runs on another root, a folder of this root alone.
    """
    digest = hashlib.sha256(_resolved(root).encode()).hexdigest()[:8]
    own = plain.with_name(f"{plain.name}-{digest}")
    return own if own.exists() or _is_of_another(plain, root) else plain


def _is_of_another(out: Path, root: str) -> bool:
    """Whether a run of the plan, or of its rehearsal, is on another root that is here."""
    for folder in (out, out.with_name(f"{out.name}-rehearsal")):
        for file in sorted(folder.glob("*/config.yaml")):
            there = str((_settings(file.parent) or {}).get("data", {}).get("root", root))
            if _is_here(there) and _resolved(there) != _resolved(root):
                return True
    return False


def _settings(run: Path) -> dict[str, Any] | None:
    """The settings of a run that its result depends on; None where it does not say them."""
    try:
        values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return config.result_changing({**values, "data": {**values["data"]}})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        log.warning("%s/config.yaml cannot be read: %s", run, error)
        return None


def _is_here(place: str) -> bool:
    return is_remote(place) or os.path.exists(place)


def _resolved(place: str) -> str:
    return place.rstrip("/") if is_remote(place) else os.path.realpath(place)


def refuse(changed: Sequence[tuple[str, Sequence[str]]], out: Path) -> None:
    """Refuse runs that were trained with other settings than the plan has now.

    Args:
        changed: Name of each run, and its settings that differ.
        out: The plan's folder.

    Raises:
        ConfigError: There are such runs.
    """
    if not changed:
        return
    listed = "; ".join(f"{name}: {', '.join(words)}" for name, words in changed)
    raise ConfigError(
        f"runs in {out} were trained with other settings than the plan has now ({listed}). Give the"
        " arms their settings back, or other names, or the plan another out"
    )
