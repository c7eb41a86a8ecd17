"""Filters on images and masks, in numpy alone."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


def highest(values: NDArray[T]) -> NDArray[T]:
    """The maximum of three channels, [h, w, 3] -> [h, w]; numpy is slow along a short axis."""
    most: NDArray[T] = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])
    return most


def lowest(values: NDArray[T]) -> NDArray[T]:
    """The minimum of three channels, [h, w, 3] -> [h, w]."""
    least: NDArray[T] = np.minimum(np.minimum(values[..., 0], values[..., 1]), values[..., 2])
    return least


def average(values: NDArray[Any]) -> Map:
    """The mean of three channels, [h, w, 3] -> float32 [h, w]."""
    red, green, blue = (values[..., c].astype(np.float32) for c in range(3))
    mean: Map = (red + green + blue) / np.float32(3)
    return mean


def smooth(values: Map) -> Map:
    """A binomial filter of five pixels along both axes of [h, w, ...]; edges are repeated."""
    for axis in (0, 1):
        pad = [(2, 2) if a == axis else (0, 0) for a in range(values.ndim)]
        padded, length = np.pad(values, pad, mode="edge"), values.shape[axis]
        parts = [
            padded[i : i + length] if axis == 0 else padded[:, i : i + length] for i in range(5)
        ]
        ends, near = parts[0] + parts[4], parts[1] + parts[3]
        values = (ends + 4 * near + 6 * parts[2]) / np.float32(16)
    return values


def window_mean(values: NDArray[Any], size: int, *, linear: bool = False) -> NDArray[np.float64]:
    """The mean in a square window.

    Args:
        values: [h, w].
        size: Side of the window, an odd number of pixels.
        linear: Extrapolate beyond the edges, so that a gradient stays a gradient; otherwise the
            edge pixels are repeated.

    Returns:
        float64 [h, w].
    """
    half = size // 2
    if linear and min(values.shape) > half:
        padded = np.pad(values.astype(np.float64), half, mode="reflect", reflect_type="odd")
    else:
        padded = np.pad(values, half, mode="edge")
    sums = np.zeros((padded.shape[0] + 1, padded.shape[1] + 1))
    sums[1:, 1:] = padded
    for axis in (0, 1):
        np.cumsum(sums, axis=axis, out=sums)
    mean = sums[size:, size:] - sums[:-size, size:]
    mean -= sums[size:, :-size]
    mean += sums[:-size, :-size]
    mean /= size**2
    return mean


def deviation(values: Map, size: int = 5) -> Map:
    """The standard deviation in a square window, [h, w] -> [h, w]."""
    mean = window_mean(values, size)
    squares = window_mean(values.astype(np.float64) ** 2, size)
    spread: Map = np.sqrt(np.maximum(squares - mean**2, 0)).astype(np.float32)
    return spread


def roughness(values: Map, size: int = 5) -> Map:
    """The standard deviation in a window about the local slope: a gradient has none."""
    rest = values - window_mean(values, size, linear=True)
    rough: Map = np.sqrt(np.maximum(window_mean(rest**2, size), 0)).astype(np.float32)
    return rough


def dilated(mask: Mask, radius: int) -> Mask:
    """The mask dilated with a square that reaches `radius` pixels to each side."""
    for axis in (0, 1):
        mask = _widened(mask, radius, axis)
    return mask


def eroded(mask: Mask, radius: int) -> Mask:
    """The mask eroded with a square of `radius` pixels to each side; edge pixels are repeated."""
    return ~dilated(~mask, radius)


def opened(mask: Mask, radius: int) -> Mask:
    """The mask without what is narrower than that square: eroded, then dilated."""
    return dilated(eroded(mask, radius), radius) if radius else mask


def closed(mask: Mask, radius: int) -> Mask:
    """The mask with narrower holes and gaps filled: dilated, then eroded."""
    if not radius:
        return mask
    wide = eroded(dilated(np.pad(mask, radius), radius), radius)
    return wide[radius:-radius, radius:-radius]


def grown(seeds: Mask, within: Mask) -> Mask:
    """The components of `within`, connected along rows and columns, that hold a seed."""
    whole = seeds.copy()
    if not seeds.any():
        return whole
    within = within | seeds
    along = _runs(within)[within], _runs(within.T).T[within]
    found, before = seeds[within], 0
    while (count := int(np.count_nonzero(found))) > before:
        before = count
        for runs in along:
            hit = np.zeros(int(runs.max()) + 1, np.bool_)
            hit[runs[found]] = True
            found = hit[runs]
    whole[within] = found
    return whole


def border(mask: Mask, width: int = 1) -> Mask:
    """The part of a mask within `width` pixels of the image's edge."""
    edge = np.ones_like(mask)
    edge[width:-width, width:-width] = False
    return mask & edge


def _widened(mask: Mask, radius: int, axis: int) -> Mask:
    """The mask dilated along one axis, in steps that double."""
    wide, done = mask, 0
    while done < radius:
        step = min(max(done, 1), radius - done)
        ahead, behind = wide.copy(), wide.copy()
        if axis == 0:
            ahead[:-step] |= wide[step:]
            behind[step:] |= wide[:-step]
        else:
            ahead[:, :-step] |= wide[:, step:]
            behind[:, step:] |= wide[:, :-step]
        wide, done = ahead | behind, done + step
    return wide


def _runs(within: Mask) -> NDArray[np.int32]:
    """The number of each pixel's run of True pixels along its row: int32 [h, w]."""
    first = within.copy()
    first[:, 1:] &= ~within[:, :-1]
    return np.cumsum(first, dtype=np.int32).reshape(within.shape)
