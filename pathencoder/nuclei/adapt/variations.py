"""Training crops in which the sure nuclei look different but are the same nuclei.

What makes the network better than its teacher.

A threshold finds dark, even nuclei. Here they are faded, hollowed (the pale middle of a vesicular
nucleus) and pasted beside others, and the whole crop is shifted and scaled against its threshold,
while the labels stay. So the network cannot copy the threshold; what is left to learn from is the
outline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.nuclei.adapt.pseudo_labels import Cutting, Lesson, touching
from pathencoder.stain import Array

Generator = np.random.Generator
Ints = NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Variation:
    """How much is varied.

    Probabilities are for one nucleus; spreads are standard deviations in units of the maps.
    """

    # probability that a nucleus is drawn towards its surroundings, by up to `fade_most`
    fade: float = 0.3
    fade_most: float = 0.7
    hollow: float = 0.6  # probability that its middle is
    paste: int = 6  # most nuclei pasted into a crop
    shift: float = 0.6  # of the whole crop against the threshold
    shift_each: float = 0.1  # of each map
    gain: float = 0.15  # log-normal
    gain_each: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.fade <= 1 and 0 <= self.hollow <= 1 and 0 <= self.fade_most <= 1):
            raise ConfigError(
                f"fade {self.fade}, fade_most {self.fade_most} and hollow {self.hollow} are shares"
                " between 0 and 1"
            )
        if min(self.paste, self.shift, self.shift_each, self.gain, self.gain_each) < 0:
            raise ConfigError(f"{self}: counts and spreads cannot be negative")


def draw(
    lessons: Sequence[Lesson], size: int, variation: Variation, rng: Generator
) -> tuple[Array, Array]:
    """One training crop: maps float32 [3, size, size] and targets float32 [3, size, size] (nucleus, depth 0..1, weight)."""
    lesson = lessons[int(rng.integers(len(lessons)))]
    maps, labels, weight, around, depth = _crop(lesson, size, rng)
    maps = _hollow(
        _fade(maps, labels, around, variation, rng), labels, around, depth, variation, rng
    )
    for _ in range(rng.integers(variation.paste + 1)):
        paste(maps, labels, weight, _pick(lessons, lesson, rng), rng)
    return _turn(_shift(maps, variation, rng), targets(labels, weight), rng)


def targets(labels: Ints, weight: Array) -> Array:
    """Nucleus (0 or 1, 0 between touching nuclei), depth, and weight (half on outlines).

    float32 [3, h, w].
    """
    from scipy import ndimage

    cut = touching(labels)
    inside = (labels > 0) & ~cut
    distance = ndimage.distance_transform_edt(inside)
    _, compact = _compact(labels)
    most = np.maximum(ndimage.maximum(distance, compact, np.arange(compact.max() + 1)), 1)
    outline = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
    return np.stack(
        [
            inside,
            np.where(inside, distance / most[compact], 0),
            weight * np.where(outline & ~cut, 0.5, 1),
        ]
    ).astype(np.float32)


def paste(
    maps: Array, labels: Ints, weight: Array, cutting: Cutting | None, rng: Generator
) -> None:
    """Lay a turned cutting into a crop, most often beside a nucleus.

    Not where it would hide a third of its own area of others.
    """
    from scipy import ndimage

    if cutting is None or max(cutting.mask.shape) >= min(labels.shape):
        return
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    patch, mask = (
        _rotate(cutting.maps, turns, mirrored=mirrored),
        _rotate(cutting.mask, turns, mirrored=mirrored),
    )
    y, x = _place(labels, mask.shape, rng)
    window = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
    if ((labels[window] > 0) & mask).sum() > mask.sum() / 3:
        return
    opacity = ndimage.gaussian_filter(mask.astype(np.float32), 0.7) * rng.uniform(0.6, 1)
    maps[:, *window] += opacity * (patch - maps[:, *window])
    labels[window] = np.where(mask, labels.max() + 1, labels[window])
    weight[window] = np.where(mask, 1, weight[window])


def _crop(lesson: Lesson, size: int, rng: Generator) -> tuple[Array, Ints, Array, Array, Array]:
    h, w = lesson.labels.shape
    y, x = (int(rng.integers(max(n - size, 0) + 1)) for n in (h, w))

    def cut(array: NDArray[T]) -> NDArray[T]:
        """A copy of the window, mirrored at its borders where the image is smaller."""
        window = array[..., y : y + size, x : x + size]
        missing = [(0, 0)] * (array.ndim - 2) + [(0, size - n) for n in window.shape[-2:]]
        return np.pad(window, missing, mode="symmetric")

    return (
        cut(lesson.maps),
        cut(lesson.labels),
        cut(lesson.weight),
        cut(lesson.around),
        cut(lesson.depth),
    )


def _fade(maps: Array, labels: Ints, around: Array, v: Variation, rng: Generator) -> Array:
    from scipy import ndimage

    strength = _for_each(
        labels, lambda n: np.where(rng.random(n) < v.fade, rng.uniform(0, v.fade_most, n), 0)
    )
    faded: Array = maps + ndimage.gaussian_filter(strength, 0.7) * (around - maps)
    return faded


def _hollow(
    maps: Array, labels: Ints, around: Array, depth: Array, v: Variation, rng: Generator
) -> Array:
    from scipy import ndimage

    strength = _for_each(
        labels, lambda n: np.where(rng.random(n) < v.hollow, rng.uniform(0.3, 1, n), 0)
    )
    grain = ndimage.gaussian_filter(rng.normal(size=labels.shape), 1.2).astype(np.float32)
    middle = np.clip((depth - 1.5) / 1.5, 0, 1)
    amount = np.clip(strength * middle * (1 + 0.6 * grain / grain.std()), 0, 1.1)
    hollowed: Array = maps + amount * (around - maps)
    return hollowed


def _for_each(labels: Ints, values: Callable[[int], NDArray[np.floating]]) -> Array:
    """A random value for each nucleus, laid over its pixels; 0 elsewhere: float32 [h, w]."""
    names, compact = _compact(labels)
    laid: Array = (values(len(names)) * (names > 0)).astype(np.float32)[compact]
    return laid


def _compact(labels: Ints) -> tuple[Ints, NDArray[np.intp]]:
    """The labels that occur, sorted, and the place of each pixel's among them: no sort of pixels."""
    there = np.zeros(int(labels.max(initial=0)) + 1, bool)
    there[labels] = True
    return np.flatnonzero(there).astype(np.int32), (np.cumsum(there) - 1)[labels]


def _pick(lessons: Sequence[Lesson], own: Lesson, rng: Generator) -> Cutting | None:
    """A cutting, mostly from the same image."""
    source = own if rng.random() < 0.7 else lessons[int(rng.integers(len(lessons)))]
    return source.cuttings[int(rng.integers(len(source.cuttings)))] if source.cuttings else None


def _place(labels: Ints, shape: tuple[int, ...], rng: Generator) -> tuple[int, int]:
    room = np.subtract(labels.shape, shape)
    occupied = np.argwhere(labels > 0)
    if len(occupied) and rng.random() < 0.6:
        beside = (
            occupied[rng.integers(len(occupied))]
            - np.floor_divide(shape, 2)
            + rng.integers(-8, 9, 2)
        )
        y, x = np.clip(beside, 0, room)
    else:
        y, x = rng.integers(room + 1)
    return int(y), int(x)


def _shift(maps: Array, v: Variation, rng: Generator) -> Array:
    gain = np.exp(rng.normal(0, v.gain) + rng.normal(0, v.gain_each, (len(maps), 1, 1)))
    offset = rng.normal(0, v.shift) + rng.normal(0, v.shift_each, (len(maps), 1, 1))
    return (maps * gain + offset).astype(np.float32)


def _turn(maps: Array, target: Array, rng: Generator) -> tuple[Array, Array]:
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    return _rotate(maps, turns, mirrored=mirrored), _rotate(target, turns, mirrored=mirrored)


def _rotate(array: NDArray[T], turns: int, *, mirrored: bool) -> NDArray[T]:
    turned = np.rot90(array, turns, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirrored else turned)
