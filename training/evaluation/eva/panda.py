"""PANDA small from a local copy, as eva 0.4.5 reads it: a part of the slides, tiles of tissue.

Slides are divided by grade with a fixed seed. Of each, at most 200 tiles of 224 px at 0.5 um/px on
a grid, in random order of a fixed seed, of which at least 35 % is more saturated than 20 of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.slides.reader import Slide, open_slide
from pathencoder.tables import read_table
from training.evaluation.eva.eva_set import EvaImages

TABLE, SLIDES = "train_with_noisy_labels.csv", "train_images"
_SHARES = {"train": 0.1, "val": 0.05, "test": 0.05}
_SEED, _MPP, _SIDE, _MOST = 42, 0.5, 224, 200
_FOREGROUND, _SATURATION, _LEAST = 0.35, 20, 9
_SHOWN = 3
_NOISE = "noise_ratio_10"
_DOWNLOAD_TABLE = (
    f"Save https://raw.githubusercontent.com/analokmaus/kaggle-panda-challenge-public/master/"
    f"train.csv as {TABLE}"
)
_DOWNLOAD = (
    "kaggle competitions download -c prostate-cancer-grade-assessment -f train_images/ID.tiff gives"
    " one slide"
)


def read_panda(folder: Path) -> EvaImages:
    """The slides of PANDA small with their grades.

    Args:
        folder: Holds train_with_noisy_labels.csv and train_images/; of these, only the slides of
            the three parts are needed.

    Raises:
        ConfigError: The table or a slide is missing; the message says how many, and the first.
    """
    if not (folder / TABLE).is_file():
        raise ConfigError(f"{folder} does not hold PANDA: {TABLE} is missing. {_DOWNLOAD_TABLE}")
    table = read_table(folder / TABLE, required=("image_id", "isup_grade", _NOISE))
    rows = sorted(table.rows, key=lambda row: row["image_id"])
    # eva keeps the slides whose value is not 0, although it calls them the others
    rows = [row for row in rows if float(row[_NOISE] or 0) != 0]
    grades = [row["isup_grade"] for row in rows]
    images, labels, parts = [], [], []
    for part, chosen in parts_of(grades).items():
        images += [folder / SLIDES / f"{rows[i]['image_id']}.tiff" for i in chosen]
        labels += [grades[i] for i in chosen]
        parts += [part] * len(chosen)
    missing = [file.name for file in images if not file.is_file()]
    if missing:
        raise ConfigError(
            f"{folder / SLIDES} lacks {len(missing):,} of the {len(images):,} slides of PANDA"
            f" small: {', '.join(missing[:_SHOWN])}{' ...' if len(missing) > _SHOWN else ''}."
            f" {_DOWNLOAD}"
        )
    return EvaImages(images, labels, parts, images)


def parts_of(grades: Sequence[str]) -> dict[str, list[int]]:
    """The slides of each part: of every grade the same share, drawn with eva's seed."""
    rng = np.random.default_rng(_SEED)
    parts: dict[str, list[int]] = {name: [] for name in _SHARES}
    _, classes = np.unique(np.array(grades), return_inverse=True)
    for grade in range(int(classes.max(initial=-1)) + 1):
        of_grade = np.flatnonzero(classes == grade)
        rng.shuffle(of_grade)
        start = 0
        for name, share in _SHARES.items():
            count = int(np.floor(share * len(of_grade))) or 1
            parts[name] += of_grade[start : start + count].tolist()
            start += count
    return parts


def tiles_of(file: Path) -> list[NDArray[np.uint8]]:
    """The tiles of a slide, uint8 [H, W, 3], about 224 px at 0.5 um/px; [] without tissue.

    Args:
        file: The slide.

    Raises:
        SlideError: The slide is damaged, or has another size than its levels state.
        MissingMpp: It states no scale.
    """
    slide = open_slide(file)
    try:
        mpp = slide.mpp().value
        side = int(_MPP / mpp * _SIDE)
        scales = [mpp * down for down in slide.downsamples]
        finer = [i for i, scale in enumerate(scales) if scale <= _MPP]
        level = max(finer, key=lambda i: scales[i]) if finer else int(np.argmin(scales))
        read = int(_MPP / scales[level] * _SIDE)
        return [slide.read(x, y, level, read, read) for x, y in _places(slide, scales, side)]
    finally:
        slide.close()


def _places(slide: Slide, scales: Sequence[float], side: int) -> list[tuple[int, int]]:
    """Corners of the tiles in level-0 pixels: at most 200 with enough tissue."""
    mask, (across, down) = _tissue(slide, scales)
    width, height = slide.size
    corners = [
        (x, y) for x in range(0, width - side + 1, side) for y in range(0, height - side + 1, side)
    ]
    order = list(range(len(corners)))
    np.random.default_rng(_SEED).shuffle(order)
    found: list[tuple[int, int]] = []
    for x, y in (corners[i] for i in order):
        if len(found) == _MOST:
            break
        top, left = int(y / down), int(x / across)
        window = mask[top : top + int(side / down), left : left + int(side / across)]
        if window.size and window.mean() >= _FOREGROUND:
            found.append((x, y))
    return found


def _tissue(slide: Slide, scales: Sequence[float]) -> tuple[NDArray[np.bool_], tuple[float, float]]:
    """Where a slide is saturated, at its coarsest level with 9 pixels a tile, and its factors."""
    enough = [i for i, scale in enumerate(scales) if int(_MPP / scale * _SIDE) ** 2 >= _LEAST]
    level = max(enough, default=0)
    width, height = (round(side / slide.downsamples[level]) for side in slide.size)
    pixels = slide.read(0, 0, level, width, height)
    factors = slide.size[0] / width, slide.size[1] / height
    return saturation(pixels) > _SATURATION, factors


def saturation(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Saturation 0..255 of uint8 [H, W, 3], as OpenCV rounds it."""
    value = pixels.max(2).astype(np.int64)
    table = np.rint((255 << 12) / np.maximum(np.arange(256), 1)).astype(np.int64)
    table[0] = 0
    found: NDArray[np.int64] = ((value - pixels.min(2)) * table[value] + (1 << 11)) >> 12
    return found
