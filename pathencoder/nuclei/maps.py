"""The input of the network: three stain maps, normalised by the Otsu thresholds of the image.

In a map, 0 is the threshold between nuclei and the rest, +1 and -1 are about the means of the two
classes. Thresholds are of a whole image (`calibrate`), so tiles of one image agree at their
borders.

Macenko's estimate of the hematoxylin vector fails where there are not two stains (hematoxylin
alone, a tinted background, blood). Its map is weighted by its agreement with the map of the
published vector, and by its separability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder import stain as stains
from pathencoder.nuclei.measure import outweighs
from pathencoder.stain import Array

WORKING_MPP = 0.5  # micrometres per pixel of the maps
CHANNELS = 3
_WIDE, _GLASS = 33, 0.05  # px, and mean OD: a square of them that is clearer is glass
_ENOUGH, _BLOCK = 4_000_000, 256  # px: what thresholds are measured on
_BLUR = 0.6  # sigma in px before thresholds are measured
_LEAST_GAP = 0.04  # OD: half the distance of the class means; less is noise
_LEAST_THRESHOLD = 0.06  # lowest threshold in OD
# Correlation of estimated and published hematoxylin: weight 0 below the first, 1 above the second.
_AGREEMENT = (0.3, 0.6)
_SEPARABILITY = (0.75, 0.9)  # the same for the ratio of their Otsu separabilities
_RED = np.array([1, 0, 0], np.float32)
_MEAN = np.full(3, 1 / 3, np.float32)


@dataclass(frozen=True)
class Scale:
    """How one stain map is normalised.

    Attributes:
        threshold: Between nuclei and the rest, in OD.
        gap: Half the distance between the means of the two classes, in OD.
        separability: Otsu's, 0..1.
    """

    threshold: float
    gap: float
    separability: float = 1.0

    def apply(self, density: Array) -> Array:
        """Density in OD to a map in units of the gap, 0 at the threshold."""
        return (density - np.float32(self.threshold)) / np.float32(self.gap)


_DAB = Scale(0.25, 0.15)  # OD of DAB in a positive nucleus: above this
# OD, px (10 um), and share of deep pixels: at most .05 in dense Ki67, .15 with brown epithelium
_STAINED, _DEEP, _DEEP_SHARE = 0.2, 20, 0.08


@dataclass(frozen=True)
class Calibration:
    """How the optical density of one image becomes maps.

    With "he", the K = 3 densities are hematoxylin by the published vectors, hematoxylin by the
    estimated ones (Macenko), and the red channel. With "ihc", the K = 4 densities are hematoxylin,
    red, mean OD and DAB; the first map is the larger of hematoxylin and DAB.

    Attributes:
        stain: "he" or "ihc".
        projection: float32 [3, K], OD of red, green and blue to densities.
        scales: Of each density.
        own: Weight of the estimated hematoxylin in the second map, 0..1; the rest is the first map.
        within: Where DAB fills cells or membranes instead of nuclei, the scale of hematoxylin
            inside it; all maps are then of hematoxylin alone.
    """

    stain: str
    projection: Array
    scales: tuple[Scale, ...]
    own: float = 1.0
    within: Scale | None = None

    def maps(self, image: NDArray[np.uint8]) -> Array:
        """Stain maps of an image.

        Args:
            image: uint8 RGB [h, w, 3] at the working scale.

        Returns:
            float32 [3, h, w], clipped to -3..3.
        """
        density = stains.optical_density(image) @ self.projection
        if self.within:
            inside = _inside(density[..., 3])
            both = inside * self.within.apply(density[..., 0]) + (1 - inside) * self.scales[
                0
            ].apply(density[..., 0])
            alone: Array = np.clip(np.stack([both] * CHANNELS), -3, 3)
            return alone
        found = np.stack([s.apply(density[..., k]) for k, s in enumerate(self.scales)])
        if self.stain == "ihc":
            found[0] = np.maximum(found[0], found[3])
        found = np.clip(found[:CHANNELS], -3, 3)
        if self.own < 1:
            found[1] = self.own * found[1] + (1 - self.own) * found[0]
        return found

    def brown(self, image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        """Where DAB outweighs hematoxylin.

        Args:
            image: uint8 RGB [h, w, 3] at the working scale.

        Returns:
            bool [h, w]; None if DAB does not stain nuclei.
        """
        if self.stain != "ihc" or self.within:
            return None
        density = stains.separate(image, stains.H_DAB)
        return outweighs(_blur(density[..., 1]), _blur(density[..., 0]))


def calibrate(image: NDArray[np.uint8], stain: str) -> Calibration:
    """Measure the thresholds of an image on its tissue; glass around it has no effect.

    Args:
        image: uint8 RGB [h, w, 3] at the working scale. Of one larger than 4 Mpx, evenly spaced
            blocks of about that many pixels are used.
        stain: "he" or "ihc".

    Returns:
        The thresholds.
    """
    image = _spread(image)
    tissue = _on_tissue(image)
    projection = _ihc_projection() if stain == "ihc" else _he_projection(image[tissue])
    density = stains.optical_density(image) @ projection
    smooth = np.stack([_blur(density[..., k])[tissue] for k in range(projection.shape[1])], -1)
    if stain != "ihc":
        scales = (
            _measure(smooth[:, 0]),
            _measure(smooth[:, 1], least=-np.inf),
            _measure(smooth[:, 2]),
        )
        found_own = not np.array_equal(projection[:, 0], projection[:, 1])
        return Calibration(
            stain,
            projection,
            scales,
            _trust(smooth[:, 0], smooth[:, 1], scales) if found_own else 0.0,
        )
    counted = smooth[_without_dab(smooth[:, 3])]
    dab = _blur(density[..., 3])
    within = _measure(density[..., 0][_inside(dab) > 0.5]) if fills_cells(dab, tissue) else None
    return Calibration(
        stain, projection, (*(_measure(d) for d in counted.T[:CHANNELS]), _DAB), within=within
    )


def _on_tissue(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels bool [h, w] that are not part of wide clear glass (16 um); all, if nearly none."""
    from scipy import ndimage

    clear = _blur(stains.optical_density(image).mean(-1)) < _GLASS
    wide = ndimage.uniform_filter(clear.astype(np.float32), _WIDE, mode="nearest") > 0.98
    glass = clear & ndimage.maximum_filter(wide, _WIDE)
    tissue: NDArray[np.bool_] = ~ndimage.maximum_filter(glass, 5)  # its rim is mixed with tissue
    return tissue if tissue.mean() > 0.005 else np.ones_like(tissue)


def _spread(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blocks of 256 px in an even grid, joined to one image of about `_ENOUGH` pixels at most."""
    kept = [
        max(1, int(n * (_ENOUGH / (image.shape[0] * image.shape[1])) ** 0.5) // _BLOCK)
        for n in image.shape[:2]
    ]
    if image.shape[0] * image.shape[1] <= _ENOUGH or min(image.shape[:2]) < _BLOCK:
        return image
    ys, xs = (
        np.linspace(0, n - _BLOCK, k).astype(int)
        for n, k in zip(image.shape[:2], kept, strict=True)
    )
    return np.concatenate(
        [np.concatenate([image[y : y + _BLOCK, x : x + _BLOCK] for x in xs], 1) for y in ys], 0
    )


def _he_projection(image: NDArray[np.uint8]) -> Array:
    published = stains.unmixing(stains.HE)[:, 0]
    vectors = stains.macenko(image)
    own = published if vectors is None else stains.unmixing_of(vectors)[:, 0]
    return np.stack([published, own, _RED], 1)


def _ihc_projection() -> Array:
    hematoxylin, dab = stains.unmixing(stains.H_DAB).T
    return np.stack([hematoxylin, _RED, _MEAN, dab], 1)


def _without_dab(dab: Array) -> NDArray[np.bool_]:
    """The pixels without DAB, so that dark positive nuclei do not raise the thresholds."""
    free: NDArray[np.bool_] = dab < 0.15
    return free if free.mean() > 0.2 else dab <= np.median(dab)


def _trust(published: Array, own: Array, scales: tuple[Scale, ...]) -> float:
    """Weight of the estimated hematoxylin, 0..1."""
    spread = float(published.std() * own.std())
    agreement = float(((published - published.mean()) * (own - own.mean())).mean()) / max(
        spread, 1e-9
    )
    return _ramp(agreement, *_AGREEMENT) * _ramp(
        scales[1].separability / max(scales[0].separability, 1e-9), *_SEPARABILITY
    )


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))


def fills_cells(dab: Array, tissue: NDArray[np.bool_]) -> bool:
    """Whether DAB fills cells, membranes or stroma: much of it is deeper than a nucleus is thick.

    Args:
        dab: float32 [h, w], density in OD.
        tissue: bool [h, w].
    """
    from scipy import ndimage

    stained = dab > _STAINED
    depth = ndimage.distance_transform_edt(np.pad(stained, 1, mode="edge"))[1:-1, 1:-1]
    return bool(
        stained.sum() > 0.02 * tissue.sum() and (depth > _DEEP).sum() > _DEEP_SHARE * stained.sum()
    )


def _inside(dab: Array) -> Array:
    """How far a pixel lies in DAB, 0..1, with soft borders."""
    from scipy import ndimage

    inside: Array = np.clip((ndimage.gaussian_filter(dab, 2) - 0.1) / 0.15, 0, 1)
    return inside


def _measure(density: Array, *, least: float = _LEAST_THRESHOLD) -> Scale:
    """Otsu's threshold of a density.

    Args:
        density: In OD.
        least: The lowest threshold; none (-inf) for an oblique projection such as Macenko's, which
            has no natural zero.
    """
    low, high = np.percentile(density, [0.1, 99.9])
    values = np.clip(density, low, high)
    threshold = stains.otsu(values)
    above = values > threshold
    both = above.any() and not above.all()
    gap = float(values[above].mean() - values[~above].mean()) / 2 if both else 0.0
    share, variance = float(above.mean()), max(float(values.var()), 1e-12)
    return Scale(
        max(threshold, least), max(gap, _LEAST_GAP), share * (1 - share) * (2 * gap) ** 2 / variance
    )


def _blur(values: Array) -> Array:
    """Gaussian of `_BLUR` px, separable, borders repeated."""
    weights = np.exp(-0.5 * (np.arange(-2, 3) / _BLUR) ** 2).astype(np.float32)
    weights /= weights.sum()
    for axis in (0, 1):
        size = values.shape[axis]
        reach = [np.clip(np.arange(size) + k, 0, size - 1) for k in range(-2, 3)]
        values = sum(
            (w * np.take(values, r, axis) for w, r in zip(weights, reach, strict=True)),
            np.zeros_like(values),
        )
    return values
