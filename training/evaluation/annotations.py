"""The images of the nuclei sets, and their annotations beside them: label maps, points, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.data.label_maps import read_label_map
from pathencoder.heads.data.point_tables import PointTable
from pathencoder.heads.data.scales import stated_scale
from pathencoder.tables import read_table
from training.data.values import name_of


@dataclass(frozen=True)
class Picture:
    """One image of a labelled set.

    Attributes:
        file: Where it is.
        group: Its patient or slide, or the file where that is unknown.
        split: Its part of the set.
        mpp: Its own scale, um/px.
    """

    file: Path
    group: str
    split: str
    mpp: float


def read_pictures(root: Path, parts: Sequence[str], mpp: float) -> list[Picture]:
    """The images of a set, from its meta.csv.

    Args:
        root: The folder of the set.
        parts: Images of these alone.
        mpp: The scale of images whose row states none, um/px.

    Returns:
        The images, in the order of the table.

    Raises:
        ConfigError: The table is missing, lacks a column, or has no rows of these parts.
    """
    required = ("file", "split", "mpp", "slide_id")
    table = read_table(root / "meta.csv", required, last_is_text=True)
    found = [
        Picture(
            root / row["file"],
            name_of(row["slide_id"]) or row["file"],
            row["split"],
            scale_of(row["mpp"]) or mpp,
        )
        for _, row in table
        if row["split"] in parts
    ]
    if not found:
        raise ConfigError(f"{root / 'meta.csv'} has no rows of the parts {', '.join(parts)}")
    return found


def open_labels(image: Path) -> NDArray[np.integer]:
    """The instance map of an image, from NAME.labels.png beside it.

    Args:
        image: The image's file.

    Returns:
        [H, W] of integers: 0 is background, every other number one object.

    Raises:
        ImageError: The map is missing, damaged, or holds no labels.
    """
    return read_label_map(image.with_name(f"{image.stem}.labels.png"))


def read_points(image: Path) -> tuple[NDArray[np.float64], list[str]]:
    """The annotated points of an image, from NAME.points.csv beside it.

    Args:
        image: The image's file.

    Returns:
        x and y of each point in pixels of the image [N, 2], and its class, "" where none is given.

    Raises:
        ConfigError: The table is missing, lacks a column, or has a value that is no number.
    """
    found = PointTable(image.with_name(f"{image.stem}.points.csv")).read(mpp=1.0)
    return found.points, list(found.names)


def scale_of(text: str) -> float | None:
    """The number in a scale as the sets' tables word it; None where it begins with none.

    Args:
        text: For example "0.25", "~0.55" or "0.25 (assumed 40x)", um/px.
    """
    try:
        return stated_scale(text)
    except ConfigError:
        return None
