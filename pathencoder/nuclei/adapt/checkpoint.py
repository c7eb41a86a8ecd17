"""A stopped training goes on: its state in one file, written whole, read without pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pathencoder.stain import Array

EVERY = 20  # steps between two checkpoints
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stopped:
    """Where a training stopped.

    Attributes:
        number: Index of the round.
        step: Steps of the round that are done.
        teacher: Weights of the network of the round before; None in the first.
        state: Of the round's network, optimiser, schedule, average and random numbers.
    """

    number: int
    step: int
    teacher: Weights | None
    state: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training. `key` names its images, recipe and seed: another's is not read."""

    file: Path
    key: str

    def read(self) -> Stopped | None:
        """Where this training stopped; None where it did not, or where the file is damaged.

        A file that was cut short fails in many ways: whatever it raises, training begins anew.
        """
        try:
            kept = torch.load(self.file, weights_only=True)
            if kept["key"] != self.key:
                return None
            return Stopped(kept["number"], kept["step"], kept["teacher"], kept["state"])
        except Exception:
            return None

    def write(self, stopped: Stopped) -> None:
        """Keep where the training is.

        Args:
            stopped: Plain values and tensors only.

        Raises:
            StoreError: The file cannot be written.
        """
        from pathencoder.files import make_folder, whole_file

        make_folder(self.file.parent)
        with whole_file(self.file) as path:
            torch.save({"key": self.key, **vars(stopped)}, path)

    def remove(self) -> None:
        """The training is done: the file is of no more use."""
        self.file.unlink(missing_ok=True)


def key_of(images: Sequence[Array], recipe: str, seed: int) -> str:
    """A name for a training by what it depends on."""
    found = hashlib.sha256(f"{recipe} {seed} {torch.__version__}".encode())
    for image in images:
        found.update(f"{image.shape}".encode())
        found.update(np.ascontiguousarray(image).tobytes())
    return found.hexdigest()


def random_state(rng: np.random.Generator) -> str:
    """The state of a generator as text."""
    return json.dumps(rng.bit_generator.state)


def restore_random(rng: np.random.Generator, state: str) -> None:
    """Set a generator to a state of `random_state`."""
    rng.bit_generator.state = json.loads(state)
