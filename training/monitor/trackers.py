"""Trackers: a run's figures in TensorBoard or Weights and Biases as well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from pathencoder.errors import MissingExtra


class Tracker(Protocol):
    """A service that figures are sent to."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Send the finite numbers of one log line, named kind/name."""

    def close(self) -> None:
        """Finish; called once, at the end of the run."""


class TensorBoard:
    """Event files in run/tensorboard.

    Raises:
        MissingExtra: The tensorboard package is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("trackers", "run.tensorboard=true") from error
        self._writer = SummaryWriter(str(run / "tensorboard"))

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
        run: The run's folder; its name is the name of the W&B run.
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
            id=run.name,
            resume="allow",
            dir=str(run),
            config=settings,
        )

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Send the finite numbers, the step among them.

        W&B drops values of a step that it has seen, as a resumed run repeats some.
        """
        self._run.log({**_numbers(kind, values), "step": step})

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


def _numbers(kind: str, values: dict[str, Any]) -> dict[str, float]:
    return {
        f"{kind}/{k}": float(v)
        for k, v in values.items()
        if isinstance(v, int | float) and math.isfinite(v)
    }
