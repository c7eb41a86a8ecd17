"""The state of an interrupted adaptation: a file for each fit, whole, read without pickle."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pathencoder.files import make_folder, whole_file

log = logging.getLogger(__name__)

SECONDS = 60.0  # between two writes
_NAME = "fit-{}.pt"


@dataclass
class Checkpoint:
    """The file of one fit.

    Attributes:
        file: Its path.
        key: A hash of everything that the fit depends on. A file with another key is not used.
    """

    file: Path
    key: str
    _written: float = field(default_factory=time.monotonic)

    def read(self) -> dict[str, Any] | None:
        """The state; None without a file, or where it is damaged or of another fit."""
        if not self.file.exists():
            return None
        # a file that was cut short raises errors of many kinds: after any of them the fit starts
        # from its beginning
        try:
            kept = torch.load(self.file, map_location="cpu", weights_only=True)
            if kept["key"] == self.key:
                return dict(kept["state"])
        except Exception as error:
            log.warning("%s cannot be read (%s): starting from the beginning", self.file, error)
            return None
        log.warning("%s is of other images, weights or settings: not used", self.file)
        return None

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= SECONDS

    def write(self, state: dict[str, Any]) -> None:
        """Save a state of plain values and tensors.

        Raises:
            StoreError: It cannot be written.
        """
        make_folder(self.file.parent)
        with whole_file(self.file) as temporary:
            torch.save({"key": self.key, "state": state}, temporary)
        self._written = time.monotonic()


def checkpoint_of(folder: Path | None, number: int, key: str) -> Checkpoint | None:
    """The checkpoint of a fit by its number; None without a folder."""
    return None if folder is None else Checkpoint(folder / _NAME.format(number), key)


def remove(folder: Path | None) -> None:
    """Delete the checkpoints in a folder, and the folder where nothing else is in it."""
    if folder is None or not folder.is_dir():
        return
    for file in folder.glob(_NAME.format("*")):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def key_of(*facts: object, contents: Sequence[bytes] = ()) -> str:
    """A hash of everything that a fit depends on."""
    digest = hashlib.sha256(repr((torch.__version__, facts)).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
