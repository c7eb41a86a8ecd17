"""The network's input: three maps of nuclear stain, each shifted and scaled by its own image's Otsu threshold.

In a map, 0 is the image's own threshold between nuclei and the rest, +1 and -1 are about the means of the two classes. Thresholds belong to
a whole image (`calibrate`), so tiles of one image agree at their borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder import stain as stains
from pathencoder.stain import Array

WORKING_MPP = 0.5  # micrometres per pixel of the maps
CHANNELS = 3
_BLUR = 0.6  # sigma before thresholds are measured, px
_LEAST_GAP = 0.04  # OD: half the distance of the class means; less is noise, not stain
_LEAST_THRESHOLD = 0.06  # OD below which nothing is a nucleus
_RED = np.array([1, 0, 0], np.float32)
_MEAN = np.full(3, 1 / 3, np.float32)


@dataclass(frozen=True)
class Scale:
    """One map's threshold and half the distance between its two classes, in OD."""

    threshold: float
    gap: float

    def apply(self, density: Array) -> Array:
        """Density to a map in units of the gap, 0 at the threshold."""
        return (density - np.float32(self.threshold)) / np.float32(self.gap)


_DAB = Scale(0.25, 0.15)  # OD of DAB in a positive nucleus: above this


@dataclass(frozen=True)
class Calibration:
    """How one image's optical density becomes maps: `projection` float32 [3, K] to K densities, and a scale for each.

    stain "he" (K = 3): hematoxylin by the published vectors, hematoxylin by the image's own (Macenko), the red channel.
    stain "ihc" (K = 4): hematoxylin, red, mean OD, and DAB; the first map is the larger of the scaled hematoxylin and DAB.
    """

    stain: str
    projection: Array
    scales: tuple[Scale, ...]

    def maps(self, image: NDArray[np.uint8]) -> Array:
        """uint8 [h, w, 3] at the working scale to float32 [3, h, w], values kept within -3..3."""
        density = stains.optical_density(image) @ self.projection
        found = np.stack([s.apply(density[..., k]) for k, s in enumerate(self.scales)])
        if self.stain == "ihc":
            found[0] = np.maximum(found[0], found[3])
        return np.clip(found[:CHANNELS], -3, 3)


def calibrate(image: NDArray[np.uint8], stain: str) -> Calibration:
    """Measure an image's thresholds: uint8 [h, w, 3] at the working scale, `stain` "he" or "ihc"."""
    projection = _ihc_projection() if stain == "ihc" else _he_projection(image)
    density = stains.optical_density(image) @ projection
    smooth = np.stack([_blur(density[..., k]) for k in range(projection.shape[1])], -1).reshape(-1, projection.shape[1])
    if stain != "ihc":
        return Calibration(stain, projection, tuple(_measure(d) for d in smooth.T))
    counted = smooth[_without_dab(smooth[:, 3])]
    return Calibration(stain, projection, (*(_measure(d) for d in counted.T[:CHANNELS]), _DAB))


def _he_projection(image: NDArray[np.uint8]) -> Array:
    published = stains.unmixing(stains.HE)[:, 0]
    vectors = stains.macenko(image)
    own = published if vectors is None else stains.unmixing_of(vectors)[:, 0]
    return np.stack([published, own, _RED], 1)


def _ihc_projection() -> Array:
    hematoxylin, dab = stains.unmixing(stains.H_DAB).T
    return np.stack([hematoxylin, _RED, _MEAN, dab], 1)


def _without_dab(dab: Array) -> NDArray[np.bool_]:
    """The pixels that thresholds are measured on: those without DAB, so that dark positives do not hide pale negatives."""
    free: NDArray[np.bool_] = dab < 0.15
    return free if free.mean() > 0.2 else dab <= np.median(dab)


def _measure(density: Array) -> Scale:
    low, high = np.percentile(density, [0.1, 99.9])
    values = np.clip(density, low, high)
    threshold = stains.otsu(values)
    above = values > threshold
    gap = (values[above].mean() - values[~above].mean()) / 2 if above.any() and not above.all() else 0.0
    return Scale(max(threshold, _LEAST_THRESHOLD), max(float(gap), _LEAST_GAP))


def _blur(values: Array) -> Array:
    """Gaussian of `_BLUR` px, separable, borders repeated."""
    weights = np.exp(-0.5 * (np.arange(-2, 3) / _BLUR) ** 2).astype(np.float32)
    weights /= weights.sum()
    for axis in (0, 1):
        size = values.shape[axis]
        reach = [np.clip(np.arange(size) + k, 0, size - 1) for k in range(-2, 3)]
        values = sum((w * np.take(values, r, axis) for w, r in zip(weights, reach, strict=True)), np.zeros_like(values))
    return values
