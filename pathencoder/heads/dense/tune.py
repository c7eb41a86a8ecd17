"""How peaks become points, chosen on training images that a head was not fitted on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pathencoder.matching import matches_of

MATCH_UM = 3.0  # 6 px at 20x, 12 px at 40x: as detectors of nuclei are scored
_SHARE = 6  # one image in so many is held out
STEP = 0.01  # between two thresholds
_THRESHOLDS = np.round(np.arange(0.15, 0.755, STEP), 2)
_NEIGHBOURS = 7  # thresholds whose F1 is averaged
_EQUAL = 1e-9  # F1 that differ by less are equal
_APART = (0.7, 1.0, 1.4, 2.0)  # factors of the distance that the labels gave
# Of the map. Where points lie anywhere near the middle of a cell, a map has several peaks a cell.
SMOOTHING_UM = (0.35, 0.8)

Floats = NDArray[np.float32]
Points = NDArray[np.floating]
# map, threshold, um apart, um of smoothing -> x, y, height
Peaks = Callable[[Floats, float, float, float], Points]


def held_out(groups: Sequence[str], seed: int = 0) -> list[int]:
    """The images to hold out: whole groups, about one image in six.

    Args:
        groups: Patient, slide or case of each image; "": the image is a group of its own.
        seed: Of the drawing.

    Returns:
        Indices, sorted; none where there are fewer than six groups.
    """
    names = [group or f"\0{i}" for i, group in enumerate(groups)]
    different = sorted(set(names))
    if len(different) < _SHARE:
        return []
    chosen: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(different)):
        members = [i for i, name in enumerate(names) if name == different[number]]
        # a group with most of the images stays in the training
        if len(chosen) + len(members) <= max(1, round(len(names) / _SHARE)):
            chosen += members
    return sorted(chosen)


def peaks(
    maps: Sequence[Floats], truths: Sequence[Points], mpp: float, apart_um: float, find: Peaks
) -> dict[str, float]:
    """The lowest peak, the smallest distance of two and the smoothing, by F1 within 3 um.

    Args:
        maps: Heights [h, w] of images that were held out.
        truths: Their true points, in pixels of the images as they were read.
        mpp: Micrometres per pixel of these.
        apart_um: The distance that the labels gave; smaller and larger ones are tried.
        find: From a map to points in pixels of the read image.

    Returns:
        "threshold", "apart_um", "smoothing_um", and what they reach: "held_out_f1" and
        "held_out_images". The F1 of neighbouring thresholds is averaged before the best is taken,
        so that chance counts less; of equally good ones the middle one is taken. The range is
        narrow: F1 falls faster above its best threshold than below, and a wide average would choose
        one too low. Empty where no point is true.
    """
    if not any(len(t) for t in truths):
        return {}
    best: tuple[float, dict[str, float]] | None = None
    around = _NEIGHBOURS // 2
    for smoothing, factor in itertools.product(SMOOTHING_UM, _APART):
        found = [find(m, float(_THRESHOLDS[0]), apart_um * factor, smoothing) for m in maps]
        f1 = _f1(found, truths, MATCH_UM / mpp)
        padded = np.pad(f1, around, mode="edge")
        smooth = np.convolve(padded, np.full(_NEIGHBOURS, 1 / _NEIGHBOURS), "valid")
        at = int(np.median(np.flatnonzero(smooth > smooth.max() - _EQUAL)))
        if best is None or smooth[at] > best[0]:
            sizes = {
                "threshold": float(_THRESHOLDS[at]),
                "apart_um": apart_um * factor,
                "smoothing_um": smoothing,
                "held_out_f1": float(f1[at]),
                "held_out_images": float(len(maps)),
            }
            best = float(smooth[at]), sizes
    assert best is not None
    return best[1]


def notes(sizes: Mapping[str, float]) -> list[str]:
    """How the sizes of a head of points were chosen, as sentences; none for other heads."""
    if "threshold" not in sizes:
        return []
    chosen = f"the lowest peak, {sizes['threshold']:g}, the smallest distance of two cells,"
    chosen += f" {sizes['apart_um']:.1f} um, and the smoothing of the map,"
    chosen += f" {sizes.get('smoothing_um', SMOOTHING_UM[0]):g} um"
    if "held_out_f1" not in sizes:
        return [
            f"{chosen}, were not chosen by a score: that needs images of {_SHARE} groups or more"
        ]
    return [
        f"{sizes['held_out_images']:.0f} images were not trained on: they chose {chosen} (F1"
        f" {sizes['held_out_f1']:.3f} there, a little too good for having been chosen)"
    ]


def _f1(found: Sequence[Points], truths: Sequence[Points], radius: float) -> NDArray[np.float64]:
    """F1 at each threshold, pooled over the images."""
    hits, both = np.zeros(len(_THRESHOLDS)), np.zeros(len(_THRESHOLDS))
    for points, truth in zip(found, truths, strict=True):
        kept = points[:, 2] >= _THRESHOLDS[:, None]
        hits += matches_of(truth, points[:, :2], kept, radius)
        both += kept.sum(1) + len(truth)
    scores: NDArray[np.float64] = 2 * hits / both.clip(1)
    return scores
