"""The state of an interrupted training: one file, written atomically, read without pickle."""

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
    """The state of an interrupted training.

    Attributes:
        number: Index of the round.
        step: Completed steps of the round.
        teacher: Weights of the network of the round before; None in the first.
        state: Of the round's network, optimiser, schedule, average and random numbers.
    """

    number: int
    step: int
    teacher: Weights | None
    state: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of one training.

    Attributes:
        file: Its path.
        key: A hash of the images, recipe and seed. A file with another key is ignored.
    """

    file: Path
    key: str

    def read(self) -> Stopped | None:
        """The saved state; None without a file, or if it is damaged or of another training.

        A truncated file raises many kinds of errors: after any of them training starts over.
        """
        try:
            kept = torch.load(self.file, weights_only=True)
            if kept["key"] != self.key:
                return None
            return Stopped(kept["number"], kept["step"], kept["teacher"], kept["state"])
        except Exception:
            return None

    def write(self, stopped: Stopped) -> None:
        """Save the state.

        Args:
            stopped: The state, of plain values and tensors.

        Raises:
            StoreError: The file cannot be written.
        """
        from pathencoder.files import make_folder, whole_file

        make_folder(self.file.parent)
        with whole_file(self.file) as path:
            torch.save({"key": self.key, **vars(stopped)}, path)

    def remove(self) -> None:
        """Delete the file."""
        self.file.unlink(missing_ok=True)


def key_of(images: Sequence[Array], recipe: str, seed: int) -> str:
    """A hash of everything that a training depends on."""
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
