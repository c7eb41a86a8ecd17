"""What a dense head learns from labels: inside and contour or depth of objects, points, classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Labels = NDArray[np.integer]
IGNORED = 255  # number of pixels whose class is not known


def glands(labels: Labels, border: float) -> Floats:
    """Inside and contour of large objects.

    Args:
        labels: [H, W], 0 is background, every other number one object.
        border: Half the width of a contour, in pixels.

    Returns:
        float32 [2, H, W] of 0 and 1. Contours of two objects that touch are one.
    """
    inside = labels > 0
    near = distance_to_border(labels) <= border
    return np.stack([inside, near]).astype(np.float32)


def nuclei(labels: Labels) -> Floats:
    """Inside and depth of small objects.

    Args:
        labels: [H, W], 0 is background, every other number one object.

    Returns:
        float32 [2, H, W]: 0 or 1, and the distance to the outline as a share of the object's
        largest, 0..1, which separates objects that touch.
    """
    inside = labels > 0
    away = np.where(inside, distance_to_border(labels), 0)
    numbers, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    most = ndimage.maximum(away, index, range(len(numbers)))
    share = away / np.maximum(np.asarray(most), 1e-6)[index]
    both: Floats = np.stack([inside, np.where(inside, share, 0)]).astype(np.float32)
    return both


def points(centres: NDArray[np.floating], shape: tuple[int, int], sigma: float) -> Floats:
    """A Gaussian of height 1 at every point; where several overlap, the largest.

    Args:
        centres: x and y [N, 2] in pixels, the centre of the first pixel at .5.
        shape: (H, W) of the map.
        sigma: Of a Gaussian, in pixels.

    Returns:
        float32 [1, H, W].
    """
    found = np.zeros(shape, np.float32)
    reach = int(np.ceil(3 * sigma))
    for x, y in centres:
        left, top = int(x) - reach, int(y) - reach
        rows = np.arange(max(top, 0), min(top + 2 * reach + 1, shape[0]))
        columns = np.arange(max(left, 0), min(left + 2 * reach + 1, shape[1]))
        if not len(rows) or not len(columns):
            continue
        square = ((rows + 0.5 - y) ** 2)[:, None] + ((columns + 0.5 - x) ** 2)[None]
        part = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.maximum(part, np.exp(-square / (2 * sigma**2)), out=part)
    return found[None]


def classes(labels: Labels, count: int) -> Floats:
    """A channel a class.

    Args:
        labels: Numbers of classes [H, W], from 0; `IGNORED` where the class is not known.
        count: Number of classes.

    Returns:
        float32 [count, H, W] of 0 and 1; 0 in all channels where the class is not known, so that
        views of it can be interpolated.
    """
    found: Floats = (labels[None] == np.arange(count)[:, None, None]).astype(np.float32)
    return found


def distance_to_border(labels: Labels) -> Floats:
    """Distance of every pixel to the nearest edge between two labels, in pixels, from .5 on."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    if not edge.any():
        return np.full(labels.shape, np.float32(max(labels.shape)))
    away: Floats = ndimage.distance_transform_edt(~edge).astype(np.float32) + np.float32(0.5)
    return away
