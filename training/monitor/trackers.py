"""Trackers: a run's figures in TensorBoard or Weights and Biases as well."""

from __future__ import annotations

import math
import uuid
from pathlib import Path
from typing import Any, Protocol

from pathencoder.errors import MissingExtra
from training.files import write_text


class Tracker(Protocol):
    """A service that figures are sent to."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Send the finite numbers of one log line, named kind/name."""

    def close(self) -> None:
        """Finish; called once, at the end of the run."""


class TensorBoard:
    """Event files in run/tensorboard.

    Args:
        run: The run's folder.
        first_step: Steps that are done; later figures of an earlier process are not shown.

    Raises:
        MissingExtra: The tensorboard package is not installed.
    """

    def __init__(self, run: Path, *, first_step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("trackers", "run.tensorboard=true") from error
        # figures of step `first_step` itself stay; a run that begins again has none to keep
        purge = first_step + 1 if first_step else 0
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=purge)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write the finite numbers as scalars."""
        for name, value in _numbers(kind, values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandB:
    """A run of a Weights and Biases project, resumed when the training run is resumed.

    The WANDB_ environment variables apply.

    Args:
        run: The run's folder; its name is the name of the W&B run, whose id is in its wandb_id.
        project: The W&B project.
        settings: The run's config.

    Raises:
        MissingExtra: The wandb package is not installed.
    """

    def __init__(self, run: Path, project: str, settings: dict[str, Any]) -> None:
        try:
            # a separate extra, which may be missing where types are checked
            import wandb  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingExtra.of("trackers", f"run.wandb={project}") from error
        self._run = wandb.init(
            project=project,
            name=run.name,
            id=_identity(run),
            resume="allow",
            dir=str(run),
            config=settings,
        )

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Send the finite numbers, except of steps that were sent before the run was resumed."""
        if step >= self._run.step:
            self._run.log(_numbers(kind, values), step=step)

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


def _identity(run: Path) -> str:
    """The id of a run in W&B: a random one, as folders of several runs may have one name."""
    file = run / "wandb_id"
    if not file.is_file():
        write_text(file, uuid.uuid4().hex[:16])
    return file.read_text(encoding="utf-8").strip()


def _numbers(kind: str, values: dict[str, Any]) -> dict[str, float]:
    return {
        f"{kind}/{k}": float(v)
        for k, v in values.items()
        if isinstance(v, int | float) and math.isfinite(v)
    }
