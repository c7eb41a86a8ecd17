"""Pseudo-labels of an unlabelled image: its confident nuclei, and the pixels to ignore.

The score map of a teacher (at first the mean stain map, later the network itself) is split into
objects. Those that resemble a nucleus in size, outline, elongation and edge contrast become labels;
the surroundings of all others are ignored by the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.nuclei import instances
from pathencoder.nuclei.instances import Labels, Scores
from pathencoder.stain import Array


@dataclass(frozen=True)
class Rule:
    """When an object counts as a nucleus.

    Attributes:
        largest: Area in pixels of 0.5 um below which an object counts (880 is 220 um2).
        solidity: Lowest ratio of the area to that of the convex hull.
        aspect: Ratio of the long to the short axis below which an object counts.
        contrast: Lowest edge contrast, as a share of that of the image's median object.
        doubt: Pixels around a rejected object that are ignored.
    """

    largest: int = 880
    solidity: float = 0.9
    aspect: float = 3.0
    contrast: float = 0.6
    doubt: float = 5.0


@dataclass(frozen=True)
class NucleusPatch:
    """One isolated nucleus, to be pasted elsewhere.

    Attributes:
        maps: float32 [3, h, w], the stain maps around it.
        mask: bool [h, w], its pixels.
    """

    maps: Array
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class PseudoLabels:
    """One image with its pseudo-labels, at the working scale.

    Attributes:
        maps: float32 [3, h, w], the stain maps.
        labels: int32 [h, w], the confident nuclei.
        weight: float32 [h, w] of the loss, 0 where pixels are ignored.
        around: float32 [3, h, w], the maps without nuclei, smoothed.
        depth: float32 [h, w], inside a nucleus the pixels to its outline.
        patches: The isolated nuclei.
    """

    maps: Array
    labels: Labels
    weight: Array
    around: Array
    depth: Array
    patches: tuple[NucleusPatch, ...]


def make_pseudo_labels(
    maps: Array, scores: Scores, rule: Rule | None = None
) -> PseudoLabels | None:
    """Pseudo-labels of one image.

    Args:
        maps: float32 [3, h, w], its stain maps.
        scores: float32 [h, w] of the teacher, above 0 in nuclei.
        rule: When an object counts as a nucleus. None: the defaults.

    Returns:
        The labels; None if no object counts as a nucleus.
    """
    from scipy import ndimage
    from skimage.segmentation import expand_labels

    rule = rule or Rule()
    objects = instances.split(scores, instances.Shape())
    confident = np.append(False, passes(objects, maps, rule))
    if not confident.any():
        return None
    near = expand_labels(objects, rule.doubt)
    weight = np.where((near > 0) & ~confident[near], 0, 1).astype(np.float32)
    labels = np.where(confident[objects], objects, 0).astype(np.int32)
    depth = ndimage.distance_transform_edt((objects > 0) & ~touching(objects)).astype(np.float32)
    patches = tuple(_patches(maps, objects, labels))
    return PseudoLabels(maps, labels, weight, _around(maps, objects), depth, patches)


def passes(objects: Labels, maps: Array, rule: Rule) -> NDArray[np.bool_]:
    """Which of the objects 1..n count as a nucleus: bool [n]."""
    from skimage.measure import regionprops

    found = regionprops(objects)
    area = np.array([r.area for r in found])
    solid = np.array([r.solidity for r in found])
    aspect = np.array([r.axis_major_length / max(r.axis_minor_length, 1.0) for r in found])
    contrast = edge_contrast(objects, maps.mean(0))
    if not len(contrast):
        return np.zeros(0, bool)
    good: NDArray[np.bool_] = (
        (area < rule.largest) & (solid > rule.solidity) & (aspect < rule.aspect)
    )
    return good & (contrast > rule.contrast * np.median(contrast))


def edge_contrast(objects: Labels, values: Scores) -> NDArray[np.float64]:
    """Mean of `values` just inside the outline of each object 1..n minus the mean just outside."""
    from scipy import ndimage
    from skimage.segmentation import expand_labels

    index = np.arange(1, int(objects.max(initial=0)) + 1)
    rim = (objects > 0) & (ndimage.minimum_filter(objects, 5) != ndimage.maximum_filter(objects, 5))
    ring = np.where(objects == 0, expand_labels(objects, 2.5), 0)
    if not len(index):
        return np.zeros(0)
    inner, outer = (
        ndimage.mean(values, where, index) for where in (np.where(rim, objects, 0), ring)
    )
    contrast: NDArray[np.float64] = np.nan_to_num(np.asarray(inner) - np.asarray(outer))
    return contrast


def touching(labels: Labels) -> NDArray[np.bool_]:
    """Pixels of an object that are adjacent to another object: bool [h, w]."""
    from scipy import ndimage

    ceiling = np.where(labels == 0, np.iinfo(np.int32).max, labels)
    adjacent: NDArray[np.bool_] = (labels > 0) & (
        ndimage.minimum_filter(ceiling, 3) != ndimage.maximum_filter(labels, 3)
    )
    return adjacent


def _around(maps: Array, objects: Labels) -> Array:
    from scipy import ndimage
    from skimage.segmentation import expand_labels

    free = (expand_labels(objects, 1.5) == 0).astype(np.float32)
    share = np.maximum(ndimage.gaussian_filter(free, 8), 1e-2)
    return np.stack([ndimage.gaussian_filter(m * free, 8) / share for m in maps]).astype(np.float32)


def _patches(maps: Array, objects: Labels, labels: Labels) -> list[NucleusPatch]:
    from skimage.measure import regionprops

    found = []
    for region in regionprops(labels):
        y0, x0, y1, x1 = (max(0, v) for v in np.add(region.bbox, (-3, -3, 3, 3)))
        mask = labels[y0:y1, x0:x1] == region.label
        if (objects[y0:y1, x0:x1][~mask] > 0).mean() <= 0.15:
            found.append(NucleusPatch(maps[:, y0:y1, x0:x1], mask))
    return found
