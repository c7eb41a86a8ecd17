"""The checkpoints that a run has saved: their names, and what each says of itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pathencoder.errors import StoreError

log = logging.getLogger("training")

_NAME = "step-"


def path_of(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"{_NAME}{step:08d}"


def partial_path_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is written until it is whole."""
    return run / "checkpoints" / f".{_NAME}{step:08d}.incomplete"


def unfinished(run: Path) -> Iterator[Path]:
    """Checkpoints that are being written, or were when a process was killed."""
    return (run / "checkpoints").glob(f".{_NAME}*.incomplete")


def newest_first(run: Path) -> list[Path]:
    """The checkpoints of a run, also damaged ones, but none that is being written."""
    return sorted((run / "checkpoints").glob(f"{_NAME}[0-9]*"), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step that a run starts with when it resumes from a checkpoint."""
    return int(path.name.removeprefix(_NAME))


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run; None without one."""
    return next((p for p in newest_first(run) if (p / "run.json").is_file()), None)


def readable(found: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Those of some checkpoints that are described, with what their run.json holds.

    The log names each one that is passed over. Weights are not looked at.
    """
    for path in found:
        try:
            about = about_of(path)
        except StoreError as error:
            log.warning("%s; it is passed over", error)
        else:
            yield path, about


def newest_described(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint of a run whose run.json can be read, and what that holds.

    Returns:
        None for a run without a checkpoint.

    Raises:
        StoreError: There are checkpoints, and none can be read.
    """
    there = newest_first(run)
    found = next(readable(there), None)
    if there and not found:
        raise StoreError(
            f"no checkpoint of {run} can be read: the run.json of each is damaged. Copy one back"
            " from a backup, or begin again in another folder (out=)"
        )
    return found


def about_of(path: Path) -> dict[str, Any]:
    """What the run.json of a checkpoint holds: step, settings, and most often provenance.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        return described(path)
    except StoreError as error:
        raise StoreError(f"{path} is damaged ({error})") from error


def described(path: Path) -> dict[str, Any]:
    """`about_of`, with an error that does not name the checkpoint.

    Raises:
        StoreError: They cannot be read.
    """
    try:
        meta: dict[str, Any] = json.loads((path / "run.json").read_text())
        return {**meta, "step": int(meta["step"]), "settings": dict(meta["settings"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"its run.json cannot be read: {error}") from error
