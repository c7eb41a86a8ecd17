"""The images of a fit in memory, where they have to stay: windows are drawn from all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pathencoder import memory
from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import PictureRow
from pathencoder.heads.dense.model import Labelled, size_at
from pathencoder.heads.dense.tasks import Task
from pathencoder.nuclei.maps import CHANNELS

_GB = 1e9


def load(
    rows: Sequence[PictureRow], task: Task, mpp: float | None, *, stain_maps: bool
) -> list[Labelled]:
    """Open images with their labels.

    Args:
        rows: Of the train part.
        task: What is fitted.
        mpp: Micrometres per pixel at which images are read. None: the task's.
        stain_maps: As for `model.fit`.

    Returns:
        The images.

    Raises:
        ConfigError: A fit on them takes more memory than there is. They are opened one by one, so
            that it is said before they fill it.
        ImageError: One can no longer be read.
    """
    most, taken, images = memory.available(), 0, []
    for row in rows:
        images.append(row.load())
        taken += needed(images[-1], task, mpp or task.mpp, stain_maps=stain_maps)
        if most is not None and taken > most:
            raise ConfigError(
                f"fitting on the first {len(images):,} of {len(rows):,} images takes"
                f" {taken / _GB:,.1f} GB of memory, and {most / _GB:,.1f} GB are there: all images"
                " of a fit stay in memory. Give fewer images, or fields that are cut out of them,"
                " or a larger read_mpp"
            )
    return images


def needed(x: Labelled, task: Task, mpp: float, *, stain_maps: bool) -> int:
    """Bytes that an image takes in a fit: as it is, and as planes at the scale of the fit.

    Args:
        x: The image.
        task: As for `load`, as are the others.
        mpp: Micrometres per pixel at which it is read.
        stain_maps: Whether stain maps are read beside it.
    """
    width, height = size_at(x.image.shape, x.mpp / mpp)
    planes = x.image.shape[2] + (CHANNELS if stain_maps else 0) + _targets(task)
    labels = 0 if task.points else 1  # a resized map, int32; points are few
    return int(x.image.nbytes + x.truth.nbytes + 4 * width * height * (planes + labels))


def _targets(task: Task) -> int:
    """Planes of the targets of an image."""
    nothing = np.zeros((0, 2)) if task.points else np.zeros((8, 8), np.int32)
    return len(task.targets(nothing, (8, 8), task.mpp))
