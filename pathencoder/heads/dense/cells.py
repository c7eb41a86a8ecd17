"""Classes of cells at given points: a linear head on the embeddings of crops around them.

Detection comes first and the classes after it: a detector that learns classes along gives worse
features (DeNuC, MICCAI 2026).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, HeadMismatch
from pathencoder.heads import calibration
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.folds import NoFolds, grouped_folds, require_sklearn
from pathencoder.heads.linear import Linear, LinearOptions
from pathencoder.heads.rows import Floats, Ints, Rows, softmax
from pathencoder.mpp import check_mpp

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

_AT_ONCE = 2048  # crops that are in memory together
_FALLBACK_C = 0.01  # of folds on cells of four sets, the most frequent
_ROUNDING = 1.0  # px


@dataclass(frozen=True)
class CellOptions:
    """How the classes of cells are read and learned.

    Attributes:
        sizes_um: Sides of the crops around a cell; their embeddings are joined.
        per_class: Cells of a class that are embedded at most, drawn evenly over the images.
        c: Inverse strength of the L2 penalty. None: chosen by grouped folds.
        seed: Of the drawing and the folds.
    """

    sizes_um: tuple[float, ...] = (16.0, 48.0)
    per_class: int = 1000
    c: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for values that do not fit."""
        if not self.sizes_um or not all(0 < size < 1000 for size in self.sizes_um):
            raise ConfigError(
                f"sizes_um={self.sizes_um!r}: sides of crops in micrometres, (16, 48) for example"
            )
        if self.per_class < 2:
            raise ConfigError(f"per_class={self.per_class!r}: at least 2 cells")


@dataclass(frozen=True)
class CellClasses:
    """A fitted classifier of cells.

    Attributes:
        classes: The names of the classes, in the order of the probabilities.
        model: Embeddings to scores.
        sizes_um: Sides of the crops around a cell.
        temperature: Scores are divided by it before they become probabilities.
        settings: What was chosen, and how many cells were fitted on, as JSON values.
        notes: What was assumed or left out, as sentences.
        encoder: That the crops are embedded with.
    """

    classes: tuple[str, ...]
    model: Linear
    sizes_um: tuple[float, ...]
    temperature: float
    settings: dict[str, Any]
    notes: tuple[str, ...]
    encoder: Encoder = field(repr=False, compare=False)

    @classmethod
    def fit(
        cls,
        encoder: Encoder,
        images: Sequence[Labelled],
        options: CellOptions | None = None,
    ) -> CellClasses:
        """Fit on labelled cells; the encoder stays as it is.

        Args:
            encoder: That embeds the crops.
            images: With points and their classes; cells without one are not learned from.
            options: None: the defaults.

        Returns:
            The classifier.

        Raises:
            MissingExtra: scikit-learn is not installed.
            ConfigError: There is one class alone, points and classes differ in number, or images
                name other classes.
        """
        require_sklearn()
        how = options or CellOptions()
        classes, table = _table(images)
        chosen = _drawn(table, len(classes), how)
        rows = _rows(encoder, images, table, chosen, classes, how)
        settings, temperature, notes = _chosen(rows, how, grouped=any(x.group for x in images))
        unknown = sum(len(x.truth) for x in images) - len(table)
        notes = [*_counted(table, chosen, classes, unknown), *notes]
        settings |= {"cells": len(chosen), "images": len(images)}
        model = Linear.fit(rows, settings)
        return cls(classes, model, how.sizes_um, temperature, settings, tuple(notes), encoder)

    def predict(
        self, image: Pixels, points: NDArray[np.floating], mpp: float
    ) -> tuple[list[str], Floats]:
        """The classes of the cells at given points of an image.

        Args:
            image: uint8 [H, W, 3].
            points: x and y in pixels [N, 2 or more], the centre of the first pixel at 0; further
                columns are not read.
            mpp: Micrometres per pixel of the image.

        Returns:
            The class of each point, and probabilities [N, C] in the order of `classes`.

        Raises:
            ConfigError: A point lies outside the image, or mpp is no scale.
        """
        if not len(points):
            return [], np.zeros((0, len(self.classes)))
        found = []
        for start in range(0, len(points), _AT_ONCE):
            part = points[start : start + _AT_ONCE]
            x = embeddings(self.encoder, image, part, mpp, self.sizes_um)
            found.append(softmax(self.model.logits(x) / self.temperature))
        probabilities = np.concatenate(found)
        return [self.classes[i] for i in probabilities.argmax(1)], probabilities

    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What is saved: arrays, and JSON values."""
        about = {
            "classes": list(self.classes),
            "sizes_um": list(self.sizes_um),
            "temperature": self.temperature,
            "settings": self.settings,
            "notes": list(self.notes),
        }
        return self.model.arrays(), about

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any], encoder: Encoder
    ) -> CellClasses:
        """The classifier that `to_arrays` was called on.

        Args:
            arrays: Its arrays.
            about: Its JSON values.
            encoder: The encoder that it was fitted on.

        Returns:
            The classifier.

        Raises:
            HeadMismatch: The arrays are not of these classes, crops and encoder.
        """
        classes = tuple(about["classes"])
        sizes = tuple(float(size) for size in about["sizes_um"])
        shape = (len(sizes) * encoder.dim, len(classes))
        if arrays["weight"].shape != shape:
            raise HeadMismatch(
                f"the classes of cells need weights {list(shape)} with the encoder"
                f" {encoder.spec.name}, found {list(arrays['weight'].shape)}: load the encoder that"
                " the head was fitted on"
            )
        return cls(
            classes,
            Linear.from_arrays(arrays, about["settings"]),
            sizes,
            float(about["temperature"]),
            dict(about["settings"]),
            tuple(about["notes"]),
            encoder,
        )


def embeddings(
    encoder: Encoder,
    image: Pixels,
    points: NDArray[np.floating],
    mpp: float,
    sizes_um: Sequence[float],
) -> Floats:
    """The embeddings of crops around points, joined over the sizes.

    Args:
        encoder: That embeds them; a crop is resized whole to its input.
        image: uint8 [H, W, 3]; it is mirrored at its borders.
        points: x and y in pixels [N, 2 or more].
        mpp: Micrometres per pixel of the image.
        sizes_um: Sides of the crops.

    Returns:
        [N, D * sizes].

    Raises:
        ConfigError: A point lies outside the image, or mpp is no scale.
    """
    check_mpp(mpp)
    at = _inside(np.asarray(points, np.float64)[:, :2], image.shape)
    parts = [
        encoder.encode(crops(image, at, max(2, round(size / mpp))), progress=False)
        for size in sizes_um
    ]
    return np.concatenate(parts, 1).astype(np.float64)


def crops(image: Pixels, points: NDArray[np.floating], side: int) -> list[Pixels]:
    """Squares around points.

    Args:
        image: uint8 [H, W, 3]; it is mirrored at its borders.
        points: x and y in pixels [N, 2], inside the image.
        side: Of a square in pixels.

    Returns:
        uint8 [side, side, 3] each; the point is at the middle, to half a pixel.
    """
    around = side // 2 + 1
    padded = np.pad(image, ((around, around), (around, around), (0, 0)), mode="symmetric")
    # the centre of the first pixel is at 0, its outer edge at -.5
    corners = np.rint(points + 0.5 - side / 2).astype(int) + around
    return [padded[y : y + side, x : x + side] for x, y in corners]


def _inside(points: Floats, shape: tuple[int, ...]) -> Floats:
    """The points; those up to a pixel outside, as rounding leaves them, are moved to the border."""
    most = np.array([shape[1] - 0.5, shape[0] - 0.5])
    out = ~((points >= -0.5 - _ROUNDING) & (points <= most + _ROUNDING)).all(1)
    if out.any():
        x, y = points[out][0]
        raise ConfigError(
            f"{out.sum()} of {len(points)} points lie outside their image of {shape[1]} x"
            f" {shape[0]} pixels, the first at ({x:g}, {y:g}): points are x and y in pixels of the"
            " image"
        )
    return np.clip(points, -0.5, most)


def _table(images: Sequence[Labelled]) -> tuple[tuple[str, ...], Ints]:
    """The classes that occur, and image, point and class of every cell that has one [N, 3]."""
    parts = [np.zeros((0, 3), np.int64)]
    names = images[0].names if images else ()
    for i, x in enumerate(images):
        if x.classes is None:
            continue
        _check(i, x, names)
        points = np.flatnonzero(np.asarray(x.classes) >= 0)
        image = np.full(len(points), i)
        parts.append(np.stack([image, points, np.asarray(x.classes)[points]], 1).astype(np.int64))
    table = np.concatenate(parts)
    occur, table[:, 2] = np.unique(table[:, 2], return_inverse=True)
    if len(occur) < 2:
        found = ", ".join(names[i] for i in occur) or "none"
        raise ConfigError(f"classes of cells: {found} found, two or more are needed")
    return tuple(names[i] for i in occur), table


def _check(number: int, x: Labelled, names: tuple[str, ...]) -> None:
    """Raises ConfigError where classes do not fit their points or the other images."""
    classes = np.asarray(x.classes)
    if len(x.truth) != len(classes):
        raise ConfigError(
            f"image {number} has {len(x.truth)} points and {len(classes)} classes: give each point"
            " one, -1 where it is not known"
        )
    if x.names != names:
        raise ConfigError(
            f"image {number} names the classes {', '.join(x.names)}, the first image"
            f" {', '.join(names)}: name the same, in one order"
        )
    if len(classes) and classes.max() >= len(names):
        raise ConfigError(
            f"image {number} has a cell of class {classes.max()}, and {len(names)} classes are"
            " named"
        )


def _drawn(table: Ints, classes: int, how: CellOptions) -> Ints:
    """Rows of the table that are embedded: at most so many of a class, evenly over images."""
    rng = np.random.default_rng(how.seed)
    chosen = []
    for number in range(classes):
        rows = rng.permutation(np.flatnonzero(table[:, 2] == number))
        image = table[rows, 0]
        # the n-th cell of each image comes before the n+1-th of any
        order = np.argsort(image, kind="stable")
        _, first, counts = np.unique(image[order], return_index=True, return_counts=True)
        turn = np.empty(len(rows), np.int64)
        turn[order] = np.arange(len(rows)) - np.repeat(first, counts)
        chosen.append(rows[np.argsort(turn, kind="stable")][: how.per_class])
    return np.sort(np.concatenate(chosen))


def _rows(
    encoder: Encoder,
    images: Sequence[Labelled],
    table: Ints,
    chosen: Ints,
    classes: tuple[str, ...],
    how: CellOptions,
) -> Rows:
    """Embeddings of the chosen cells; each class weighs as much as all its cells."""
    picked = table[chosen]
    x = np.zeros((len(picked), 0))
    for i in np.unique(picked[:, 0]):
        of_image = np.flatnonzero(picked[:, 0] == i)
        source = images[i]
        points = np.asarray(source.truth)[picked[of_image, 1]]
        found = embeddings(encoder, source.image, points, source.mpp, how.sizes_um)
        if not x.shape[1]:
            x = np.zeros((len(picked), found.shape[1]))
        x[of_image] = found
    names = [source.group or f"\0{i}" for i, source in enumerate(images)]
    _, group_of = np.unique(names, return_inverse=True)
    every = np.bincount(table[:, 2], minlength=len(classes))
    weights = every / np.bincount(picked[:, 2], minlength=len(classes))
    groups = np.asarray(group_of, np.int64)[picked[:, 0]]
    return Rows(x, picked[:, 2], groups, len(classes), weights / weights.mean(), how.seed)


def _chosen(
    rows: Rows, how: CellOptions, *, grouped: bool
) -> tuple[dict[str, Any], float, list[str]]:
    """The settings and the temperature that grouped folds choose, and what has to be said."""
    notes = []
    if not grouped:
        notes.append("no groups were given: every image counts as a patient of its own")
    try:
        folds = grouped_folds(rows.y, rows.groups, seed=how.seed)
    except NoFolds:
        notes.append(
            f"a class occurs in one group alone: C is {how.c or _FALLBACK_C:g} without folds, and"
            " probabilities are not calibrated"
        )
        return {"c": how.c or _FALLBACK_C}, 1.0, notes
    settings = Linear.choose(rows, LinearOptions(how.c))
    logits = np.zeros((len(rows.y), rows.classes))
    for fitted, evaluated in folds:
        model = Linear.fit(rows.take(fitted), settings)
        logits[evaluated] = model.logits(rows.x[evaluated])
    right = float(np.average(logits.argmax(1) == rows.y, weights=rows.weights))
    settings["folds_accuracy"] = round(right, 4)
    return settings, calibration.temperature(logits, rows.y, rows.weights), notes


def _counted(table: Ints, chosen: Ints, classes: tuple[str, ...], unknown: int) -> list[str]:
    notes = []
    if unknown:
        notes.append(f"{unknown} cells of no known class were not learned from")
    if len(chosen) < len(table):
        every = np.bincount(table[:, 2], minlength=len(classes))
        fitted = np.bincount(table[chosen, 2], minlength=len(classes))
        words = ", ".join(f"{c} {a} of {b}" for c, a, b in zip(classes, fitted, every, strict=True))
        notes.append(f"cells fitted on, drawn evenly over the images: {words}")
    return notes
