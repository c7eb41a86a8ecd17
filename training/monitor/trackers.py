"""A run's figures to TensorBoard or Weights and Biases, beside the JSON lines that are always written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from pathencoder.errors import MissingExtra


class Tracker(Protocol):
    """Somewhere to send numbers."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """The finite numbers of one line, named kind/name."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files in run/tensorboard. Raises MissingExtra without the tensorboard package."""

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("trackers", "run.tensorboard=true") from error
        self._writer = SummaryWriter(str(run / "tensorboard"))

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Scalars."""
        for name, value in _numbers(kind, values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandB:
    """A run of a Weights and Biases project, gone on with after a stop.

    WANDB_MODE and its kin hold. Raises MissingExtra without it.
    """

    def __init__(self, run: Path, project: str, settings: dict[str, Any]) -> None:
        try:
            import wandb
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
        """Scalars; the step is one of them, since W&B drops a step that was written before a stop and comes again."""
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
