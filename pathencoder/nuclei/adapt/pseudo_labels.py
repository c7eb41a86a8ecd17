"""What an unlabelled image teaches.

The nuclei in it that are surely nuclei, and where nothing is sure.

A teacher's score map (at first the mean stain map, later the network itself) is cut into objects.
Those that look like a nucleus by size, outline, elongation and edge contrast become examples; the
surroundings of all others are left out of the loss.
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
    """When an object passes for a nucleus.

    Areas are pixels of 0.5 um; contrast is relative to the image's median object.
    """

    largest: int = 880  # 220 um2
    solidity: float = 0.9
    aspect: float = 3.0
    contrast: float = 0.6
    doubt: float = 5.0  # px around a rejected object that are left out


@dataclass(frozen=True)
class Cutting:
    """One well separated nucleus, to be pasted elsewhere.

    Maps float32 [3, h, w] and its mask bool [h, w].
    """

    maps: Array
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Lesson:
    """One image's part in training; all arrays are [h, w] at the working scale.

    maps: float32 [3, h, w]. labels: int32, the sure nuclei. weight: float32, 0 where nothing is
    sure. around: float32 [3, h, w], the maps
    without nuclei, smoothed. depth: float32, pixels to the outline inside a nucleus.
    """

    maps: Array
    labels: Labels
    weight: Array
    around: Array
    depth: Array
    cuttings: tuple[Cutting, ...]


def make_lesson(maps: Array, scores: Scores, rule: Rule | None = None) -> Lesson | None:
    """The lesson of one image under a teacher's scores (above 0: nucleus).

    None where no object passes for a nucleus.
    """
    from scipy import ndimage
    from skimage.segmentation import expand_labels

    rule = rule or Rule()
    objects = instances.split(scores, instances.Shape())
    sure = np.append(False, passes(objects, maps, rule))
    if not sure.any():
        return None
    near = expand_labels(objects, rule.doubt)
    weight = np.where((near > 0) & ~sure[near], 0, 1).astype(np.float32)
    labels = np.where(sure[objects], objects, 0).astype(np.int32)
    depth = ndimage.distance_transform_edt((objects > 0) & ~touching(objects)).astype(np.float32)
    return Lesson(
        maps, labels, weight, _around(maps, objects), depth, tuple(_cuttings(maps, objects, labels))
    )


def passes(objects: Labels, maps: Array, rule: Rule) -> NDArray[np.bool_]:
    """Which of the objects 1..n look like a nucleus: bool [n]."""
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
    """Mean of `values` just inside the outline of each object 1..n, less the mean just outside."""
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
    """Pixels of an object that lie beside another object."""
    from scipy import ndimage

    ceiling = np.where(labels == 0, np.iinfo(np.int32).max, labels)
    beside: NDArray[np.bool_] = (labels > 0) & (
        ndimage.minimum_filter(ceiling, 3) != ndimage.maximum_filter(labels, 3)
    )
    return beside


def _around(maps: Array, objects: Labels) -> Array:
    from scipy import ndimage
    from skimage.segmentation import expand_labels

    free = (expand_labels(objects, 1.5) == 0).astype(np.float32)
    share = np.maximum(ndimage.gaussian_filter(free, 8), 1e-2)
    return np.stack([ndimage.gaussian_filter(m * free, 8) / share for m in maps]).astype(np.float32)


def _cuttings(maps: Array, objects: Labels, labels: Labels) -> list[Cutting]:
    from skimage.measure import regionprops

    found = []
    for region in regionprops(labels):
        y0, x0, y1, x1 = (max(0, v) for v in np.add(region.bbox, (-3, -3, 3, 3)))
        mask = labels[y0:y1, x0:x1] == region.label
        if (objects[y0:y1, x0:x1][~mask] > 0).mean() <= 0.15:
            found.append(Cutting(maps[:, y0:y1, x0:x1], mask))
    return found
