"""Augmentation of training crops: the nuclei change their appearance, their labels stay.

A threshold finds dark, uniform nuclei. Here they are faded, hollowed (as the pale centre of a
vesicular nucleus) and pasted next to others, and the whole crop is shifted and scaled relative to
its threshold. The network cannot reproduce the threshold and learns outlines instead, which makes
it better than its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.nuclei.adapt.pseudo_labels import NucleusPatch, PseudoLabels, touching
from pathencoder.stain import Array

Generator = np.random.Generator
Ints = NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Variation:
    """Strength of the augmentation.

    Attributes:
        fade: Probability that a nucleus is blended with its surroundings.
        fade_most: Largest weight of the surroundings.
        hollow: Probability that the centre of a nucleus is blended with its surroundings.
        paste: Most nuclei pasted into a crop.
        shift: Standard deviation of the offset of a crop, in units of the maps.
        shift_each: The same of each map.
        gain: Standard deviation of the log-normal gain of a crop.
        gain_each: The same of each map.
    """

    fade: float = 0.3
    fade_most: float = 0.7
    hollow: float = 0.6
    paste: int = 6
    shift: float = 0.6
    shift_each: float = 0.1
    gain: float = 0.15
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
    samples: Sequence[PseudoLabels], size: int, variation: Variation, rng: Generator
) -> tuple[Array, Array]:
    """One augmented training crop.

    Args:
        samples: Images with pseudo-labels.
        size: Side of the crop in pixels.
        variation: Strength of the augmentation.
        rng: Of all random numbers.

    Returns:
        Maps float32 [3, size, size], and targets float32 [3, size, size] as of `targets`.
    """
    sample = samples[int(rng.integers(len(samples)))]
    maps, labels, weight, around, depth = _crop(sample, size, rng)
    maps = _hollow(
        _fade(maps, labels, around, variation, rng), labels, around, depth, variation, rng
    )
    for _ in range(rng.integers(variation.paste + 1)):
        paste(maps, labels, weight, _pick(samples, sample, rng), rng)
    return _random_rotation(_shift(maps, variation, rng), targets(labels, weight), rng)


def targets(labels: Ints, weight: Array) -> Array:
    """What the network is trained to predict.

    Args:
        labels: int32 [h, w], nuclei.
        weight: float32 [h, w] of the loss.

    Returns:
        float32 [3, h, w]: nucleus (0 or 1; 0 between touching nuclei), depth (0 at the outline, 1
        in the centre) and weight (halved on outlines).
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
    maps: Array, labels: Ints, weight: Array, nucleus: NucleusPatch | None, rng: Generator
) -> None:
    """Paste a rotated nucleus into a crop in place, most often next to another one.

    Nothing is pasted if it would cover other nuclei with more than a third of its area.

    Args:
        maps: float32 [3, h, w] of the crop.
        labels: int32 [h, w] of the crop.
        weight: float32 [h, w] of the crop.
        nucleus: The nucleus; None: nothing is pasted.
        rng: Of the position and the rotation.
    """
    from scipy import ndimage

    if nucleus is None or max(nucleus.mask.shape) >= min(labels.shape):
        return
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    patch, mask = (
        _rotate(nucleus.maps, turns, mirrored=mirrored),
        _rotate(nucleus.mask, turns, mirrored=mirrored),
    )
    y, x = _place(labels, mask.shape, rng)
    window = np.s_[y : y + mask.shape[0], x : x + mask.shape[1]]
    if ((labels[window] > 0) & mask).sum() > mask.sum() / 3:
        return
    opacity = ndimage.gaussian_filter(mask.astype(np.float32), 0.7) * rng.uniform(0.6, 1)
    maps[:, *window] += opacity * (patch - maps[:, *window])
    labels[window] = np.where(mask, labels.max() + 1, labels[window])
    weight[window] = np.where(mask, 1, weight[window])


def _crop(
    sample: PseudoLabels, size: int, rng: Generator
) -> tuple[Array, Ints, Array, Array, Array]:
    h, w = sample.labels.shape
    y, x = (int(rng.integers(max(n - size, 0) + 1)) for n in (h, w))

    def cut(array: NDArray[T]) -> NDArray[T]:
        """A copy of the window, mirrored at its borders where the image is smaller."""
        window = array[..., y : y + size, x : x + size]
        missing = [(0, 0)] * (array.ndim - 2) + [(0, size - n) for n in window.shape[-2:]]
        return np.pad(window, missing, mode="symmetric")

    return (
        cut(sample.maps),
        cut(sample.labels),
        cut(sample.weight),
        cut(sample.around),
        cut(sample.depth),
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
    """A random value for each nucleus at its pixels, 0 elsewhere: float32 [h, w]."""
    names, compact = _compact(labels)
    found: Array = (values(len(names)) * (names > 0)).astype(np.float32)[compact]
    return found


def _compact(labels: Ints) -> tuple[Ints, NDArray[np.intp]]:
    """The labels that occur, sorted, and the index of each pixel's among them.

    As `np.unique` with its inverse, but without sorting pixels.
    """
    there = np.zeros(int(labels.max(initial=0)) + 1, bool)
    there[labels] = True
    return np.flatnonzero(there).astype(np.int32), (np.cumsum(there) - 1)[labels]


def _pick(
    samples: Sequence[PseudoLabels], own: PseudoLabels, rng: Generator
) -> NucleusPatch | None:
    """A random isolated nucleus, mostly of the same image."""
    source = own if rng.random() < 0.7 else samples[int(rng.integers(len(samples)))]
    return source.patches[int(rng.integers(len(source.patches)))] if source.patches else None


def _place(labels: Ints, shape: tuple[int, ...], rng: Generator) -> tuple[int, int]:
    room = np.subtract(labels.shape, shape)
    occupied = np.argwhere(labels > 0)
    if len(occupied) and rng.random() < 0.6:
        near = (
            occupied[rng.integers(len(occupied))]
            - np.floor_divide(shape, 2)
            + rng.integers(-8, 9, 2)
        )
        y, x = np.clip(near, 0, room)
    else:
        y, x = rng.integers(room + 1)
    return int(y), int(x)


def _shift(maps: Array, v: Variation, rng: Generator) -> Array:
    gain = np.exp(rng.normal(0, v.gain) + rng.normal(0, v.gain_each, (len(maps), 1, 1)))
    offset = rng.normal(0, v.shift) + rng.normal(0, v.shift_each, (len(maps), 1, 1))
    return (maps * gain + offset).astype(np.float32)


def _random_rotation(maps: Array, target: Array, rng: Generator) -> tuple[Array, Array]:
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    return _rotate(maps, turns, mirrored=mirrored), _rotate(target, turns, mirrored=mirrored)


def _rotate(array: NDArray[T], turns: int, *, mirrored: bool) -> NDArray[T]:
    rotated = np.rot90(array, turns, (-2, -1))
    return np.ascontiguousarray(rotated[..., ::-1] if mirrored else rotated)
