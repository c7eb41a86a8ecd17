"""An estimate of an unknown scale, in micrometres per pixel, from the size of the nuclei.

Nuclei of different tissues differ in diameter by a factor of about 1.4, so only a large deviation
from the usual 0.25 is evidence: the estimate replaces it beyond three quarters of an octave.
Measured on MoNuSeg's training images resized by 0.5 to 4 (without labels): the bias is at most a
third of an octave, the standard deviation half an octave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ImageError
from pathencoder.nuclei import instances
from pathencoder.nuclei.instances import Shape

ASSUMED_MPP = 0.25
FINEST, COARSEST = 0.05, 2.0  # um per pixel between which nuclei can be distinguished
# px of 0.5 um: radius of the typical nucleus, weighted by area, of MoNuSeg's training images
_RADIUS = 6.8
# The measured radius grows slower than the true one, as thresholds and smallest sizes are fixed.
_EXPONENT = 1.4
_ROUNDS = 3
_OCTAVES = 0.75  # smaller deviations are ignored
_FEWEST = 5  # nuclei
_RANGE = (0.06, 1.2)
_SETTLED = 0.5  # octaves by which the final size may differ from the usual one

# Micrometres per pixel to the mean stain map at the working scale.
Score = Callable[[float], NDArray[np.float32]]


def check_scale(mpp: float, source: str, name: str) -> None:
    """Refuse a scale at which nuclei cannot be distinguished.

    Args:
        mpp: Micrometres per pixel.
        source: Where it is from.
        name: What the error calls the image.

    Raises:
        ImageError: It is outside 0.05 to 2.
    """
    if not FINEST <= mpp <= COARSEST:
        raise ImageError(
            f"{name}: {mpp:.4g} um/px ({source}); nuclei can be distinguished from {FINEST:g} to"
            f" {COARSEST:g} um/px. Give the true scale (--mpp), or a finer image"
        )


def guess_mpp(scores: Sequence[Score]) -> float | None:
    """Micrometres per pixel for which the nuclei have the usual size.

    Args:
        scores: Of one image, or of several that have the same scale.

    Returns:
        The scale. None if 0.25 fits, and if the nuclei are no evidence: there are too few, or their
        size at the estimated scale is not the usual one (clumps were measured).
    """
    mpp, radius = ASSUMED_MPP, typical_radius(score(ASSUMED_MPP) for score in scores)
    for _ in range(_ROUNDS):
        if radius is None or not _RANGE[0] <= mpp <= _RANGE[1]:
            return None
        mpp *= (_RADIUS / radius) ** _EXPONENT
        clipped = float(np.clip(mpp, *_RANGE))
        radius = typical_radius(score(clipped) for score in scores)
    settled = (
        radius is not None
        and abs(np.log2(radius / _RADIUS)) < _SETTLED
        and _RANGE[0] <= mpp <= _RANGE[1]
    )
    return round(mpp, 3) if settled and abs(np.log2(mpp / ASSUMED_MPP)) >= _OCTAVES else None


def typical_radius(maps: Iterable[NDArray[np.float32]]) -> float | None:
    """Area-weighted median radius of the nuclei of all maps.

    Args:
        maps: Mean stain maps float32 [h, w], above 0 in nuclei.

    Returns:
        The radius in pixels; None with fewer than five compact objects.
    """
    from skimage.measure import regionprops

    areas = np.sort(
        [
            region.area
            for scores in maps
            for region in regionprops(instances.split(scores, Shape()))
            if region.solidity > 0.88
        ]
    )
    if len(areas) < _FEWEST:
        return None
    total = np.cumsum(areas)
    return float(np.sqrt(areas[np.searchsorted(total, total[-1] / 2)] / np.pi))
