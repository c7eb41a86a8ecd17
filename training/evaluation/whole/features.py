"""Embeddings on disk: each tile runs through each network once, whatever is measured on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.files import make_folder, whole_file
from pathencoder.images import ImageSource
from training.evaluation.encoders import Subject
from training.evaluation.whole.subjects import Reading

log = logging.getLogger("training")
Rows = NDArray[np.float32]
Images = Callable[[], Sequence[ImageSource]]


@dataclass(frozen=True)
class Features:
    """Embeddings below one folder.

    Attributes:
        folder: A folder a fingerprint, in it a file a set.
    """

    folder: Path

    def file(self, fingerprint: str, key: str) -> Path:
        """Where the embeddings of a set are, by the fingerprint of the encoder."""
        return self.folder / fingerprint[:16] / f"{key}.npy"

    def read(self, fingerprint: str, key: str, count: int) -> Rows | None:
        """Embeddings [count, D]; None where they are not there, or damaged."""
        try:
            rows: Rows = np.load(self.file(fingerprint, key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = rows.ndim == 2 and len(rows) == count and rows.dtype == np.float32
        return rows if whole else None

    def complete(self, readings: Sequence[Reading], key: str, count: int, images: Images) -> None:
        """Embed a set with every network for which it is not there yet.

        Args:
            readings: The networks.
            key: Of the set, with a hash of its content.
            count: Number of images.
            images: Gives the images: files, or uint8 [H, W, 3].

        Raises:
            ImageError: An image cannot be read; the message names it.
            StoreError: The embeddings cannot be written.
        """
        for reading in readings:
            if all(self.read(s.fingerprint, key, count) is not None for s in reading.subjects):
                continue
            names = ", ".join(s.name for s in reading.subjects)
            log.info("%s: %d images of %s", names, count, key.partition("@")[0])
            given = [str(i) if isinstance(i, Path) else i for i in images()]
            # torch, whichever faster runtimes are installed: the same figures on every machine
            rows: Rows = reading.encoder.encode(
                given, precision="fp32", runtime="torch", progress=False
            )
            for subject, columns in zip(reading.subjects, reading.columns, strict=True):
                self._write(subject, key, rows if columns is None else rows[:, columns])

    def _write(self, subject: Subject, key: str, rows: Rows) -> None:
        file = self.file(subject.fingerprint, key)
        make_folder(file.parent)
        with whole_file(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(rows), allow_pickle=False)
