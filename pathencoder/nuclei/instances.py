"""From a score map to separate nuclei: cleaning, a watershed, and enlarging to the image.

The labels are found at the working scale (0.5 um per pixel); only the outline is drawn at the
resolution of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import MissingExtra

_LEAST_PART = 40  # px, 10 um2: the smallest brown or blue part that becomes an object
Scores = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Shape:
    """The size prior, in pixels of the working scale. The defaults are for 0.5 um per pixel.

    Attributes:
        opening: Radius of the disk that removes slivers.
        smallest: Area of the smallest nucleus (22 is 5.5 um2).
        largest_hole: Area of the largest hole that is filled.
        smoothing: Sigma of the Gaussian over the distance transform.
        apart: Smallest distance between two centres.
    """

    opening: float = 1.0
    smallest: int = 22
    largest_hole: int = 25
    smoothing: float = 1.0
    apart: int = 4


def split(scores: Scores, shape: Shape | None = None) -> Labels:
    """Split a score map into nuclei.

    Touching nuclei are separated by a watershed on the smoothed distance to the outline.

    Args:
        scores: float32 [h, w] at the working scale, above 0 in nuclei.
        shape: The size prior. None: the defaults.

    Returns:
        Labels int32 [h, w], numbered from 1.
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


def split_by_stain(labels: Labels, brown: NDArray[np.bool_], shape: Shape | None = None) -> Labels:
    """Split objects that hold a brown and a blue nucleus at the border of the two stains.

    A part counts if disks of 3 px radius (1.5 um) that fit into it cover 10 um2 or more. So the
    pale rim of a brown nucleus, or a speck in a blue one, is no part.

    Args:
        labels: int32 [h, w] at the working scale, from `split`.
        brown: bool [h, w], where DAB outweighs hematoxylin.
        shape: The size prior. None: the defaults.

    Returns:
        int32 [h, w], numbered from 1.
    """
    ndimage, *_ = tools()
    shape = shape or Shape()
    inner = labels > 0
    parts = [ndimage.binary_opening((brown == side) & inner, _disk(3)) for side in (True, False)]
    count = int(labels.max(initial=0)) + 1
    area = [np.bincount(labels[part], minlength=count) for part in parts]
    mixed = np.minimum(*area) >= _LEAST_PART
    mixed[0] = False
    if not mixed.any():
        return labels
    inside = mixed[labels]
    near_brown, near_blue = (ndimage.distance_transform_edt(~(part & inside)) for part in parts)
    separated = labels + np.where(inside & (near_brown < near_blue), count, 0).astype(np.int32)
    return renumber(separated, shape.smallest)


def clean(mask: NDArray[np.bool_], shape: Shape) -> NDArray[np.bool_]:
    """A mask without slivers, specks and small holes."""
    ndimage, *_ = tools()
    opened = ndimage.binary_opening(np.pad(mask, 3, mode="edge"), _disk(shape.opening))[3:-3, 3:-3]
    return _drop_small(~_drop_small(~opened, shape.largest_hole), shape.smallest)


def enlarge(
    labels: Labels, scores: Scores, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> Labels:
    """Enlarge labels to finer pixels.

    A fine pixel takes the nearest label (within 1.5 working px); the outline runs where the
    interpolated scores cross zero.

    Args:
        labels: int32 [h, w] at the working scale.
        scores: float32 [h, w] that they are from.
        rows: Working rows of the centres of the fine pixels [H].
        columns: Working columns of them [W].

    Returns:
        int32 [H, W].
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
    """Bilinear interpolation at a grid of rows [H] and columns [W], borders repeated.

    Returns:
        float32 [H, W].
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
    """The optional packages that split nuclei.

    Returns:
        scipy.ndimage, skimage.feature and skimage.segmentation.

    Raises:
        MissingExtra: They are not installed.
    """
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
