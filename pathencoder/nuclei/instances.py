"""From a score map to separate nuclei.

clean, split touching ones by a watershed, and bring back to the image's own size.

Everything up to the labels happens at the working scale (0.5 um per pixel); only the outline is cut
at the image's own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import MissingExtra

_PART = 40  # px, 10 um2: the smallest brown or blue part that makes an object two
Scores = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Shape:
    """The size prior, in pixels of the working scale. The defaults are for 0.5 um per pixel."""

    opening: float = 1.0  # radius of the disk that removes slivers
    smallest: int = 22  # area of the smallest nucleus, 5.5 um2
    largest_hole: int = 25  # area of the largest hole that is filled
    smoothing: float = 1.0  # sigma of the distance transform
    apart: int = 4  # smallest distance between two centres


def split(scores: Scores, shape: Shape | None = None) -> Labels:
    """Nuclei of a score map float [h, w] (above 0.

    nucleus) at the working scale: int32 labels [h, w], numbered from 1.

    Touching nuclei are separated by a watershed on the smoothed distance to the outline.
    """
    ndimage, feature, segmentation = tools()
    shape = shape or Shape()
    mask = clean(scores > 0, shape)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), shape.smoothing)
    parts, _ = ndimage.label(mask)
    peaks = feature.peak_local_max(
        distance, min_distance=shape.apart, labels=parts, exclude_border=False
    )
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return renumber(segmentation.watershed(-distance, seeds, mask=mask), shape.smallest)


def part_by_stain(labels: Labels, brown: NDArray[np.bool_], shape: Shape | None = None) -> Labels:
    """Cut objects that hold a brown and a blue nucleus at the border of the two stains.

    A part counts where a disk of 3 px radius (1.5 um) fits into it and what such disks cover is
    10 um2 or more; so the pale rim of a brown nucleus, or a speck in a blue one, is no part.

    Args:
        labels: int32 [h, w] at the working scale, from `split`.
        brown: bool [h, w], where DAB outweighs hematoxylin.
        shape: The size prior.

    Returns:
        int32 [h, w], numbered from 1; each of the cut objects is two.
    """
    ndimage, *_ = tools()
    shape = shape or Shape()
    inner = labels > 0
    parts = [ndimage.binary_opening((brown == side) & inner, _disk(3)) for side in (True, False)]
    count = int(labels.max(initial=0)) + 1
    area = [np.bincount(labels[part], minlength=count) for part in parts]
    mixed = np.minimum(*area) >= _PART
    mixed[0] = False
    if not mixed.any():
        return labels
    inside = mixed[labels]
    near_brown, near_blue = (ndimage.distance_transform_edt(~(part & inside)) for part in parts)
    cut = labels + np.where(inside & (near_brown < near_blue), count, 0).astype(np.int32)
    return renumber(cut, shape.smallest)


def clean(mask: NDArray[np.bool_], shape: Shape) -> NDArray[np.bool_]:
    """A mask without slivers, specks and small holes."""
    ndimage, *_ = tools()
    opened = ndimage.binary_opening(np.pad(mask, 3, mode="edge"), _disk(shape.opening))[3:-3, 3:-3]
    return _drop_small(~_drop_small(~opened, shape.largest_hole), shape.smallest)


def enlarge(
    labels: Labels, scores: Scores, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> Labels:
    """Labels for finer pixels, whose centres lie at these working rows and columns.

    int32 [len(rows), len(columns)].

    A fine pixel takes the nearest label (within 1.5 working px); the outline runs where the
    interpolated scores cross zero.
    """
    ndimage, _, segmentation = tools()
    nearest = np.ix_(
        *(
            np.clip(np.rint(at).astype(np.int64), 0, n - 1)
            for at, n in zip((rows, columns), labels.shape, strict=True)
        )
    )
    inside = (interpolate(scores, rows, columns) > 0) | ndimage.binary_erosion(labels > 0)[nearest]
    return np.where(inside, segmentation.expand_labels(labels, 1.5)[nearest], 0).astype(np.int32)


def interpolate(values: Scores, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Scores:
    """Bilinear values at a grid of rows and columns, borders repeated.

    float32 [len(rows), len(columns)].
    """
    for axis, at in enumerate((rows, columns)):
        low = np.clip(np.floor(at).astype(np.int64), 0, values.shape[axis] - 1)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = np.clip(at - low, 0, 1).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def renumber(labels: Labels, smallest: int) -> Labels:
    """Labels without objects below an area, numbered from 1 without gaps."""
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    return (np.cumsum(keep) * keep)[labels].astype(np.int32)


def tools() -> Any:
    """scipy.ndimage, skimage.feature and skimage.segmentation. Raises MissingExtra without them."""
    try:
        from scipy import ndimage
        from skimage import feature, segmentation
    except ImportError as error:
        raise MissingExtra.of("nuclei", "separating nuclei") from error
    return ndimage, feature, segmentation


def _disk(radius: float) -> NDArray[np.bool_]:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk: NDArray[np.bool_] = x * x + y * y <= radius * radius
    return disk


def _drop_small(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    ndimage, *_ = tools()
    parts, _ = ndimage.label(mask)
    keep = np.bincount(parts.ravel()) >= area
    keep[0] = False
    kept: NDArray[np.bool_] = keep[parts]
    return kept
