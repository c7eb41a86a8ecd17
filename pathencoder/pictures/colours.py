"""Numbers as colours: principal components, similarity, groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.pictures.components import find_components

RGB = NDArray[np.uint8]
Map = NDArray[np.float32]

# Dark blue to green to yellow, perceptually uniform (after matplotlib's viridis): position, red,
# green, blue
_SCALE = (
    (0.0, 68, 1, 84),
    (0.25, 59, 82, 139),
    (0.5, 33, 145, 140),
    (0.75, 94, 201, 98),
    (1.0, 253, 231, 37),
)
# Nine colours that people with any colour vision tell apart (Paul Tol's "muted" scheme)
GROUPS = np.array(
    [
        (51, 34, 136),
        (221, 204, 119),
        (204, 102, 119),
        (136, 204, 238),
        (17, 119, 51),
        (170, 68, 153),
        (153, 153, 51),
        (136, 34, 85),
        (68, 170, 153),
    ],
    np.uint8,
)


def pca_colours(features: Map) -> RGB:
    """The first three principal components as red, green and blue.

    Similar colours mean similar features. Signs are fixed, so that the same features give the same
    colours.

    Args:
        features: float32 [h, w, C].

    Returns:
        uint8 [h, w, 3].
    """
    flat = features.reshape(-1, features.shape[2])
    scores = find_components([flat], 3).scores(flat)
    return component_colours(scores).reshape(*features.shape[:2], 3)


def component_colours(scores: Map) -> RGB:
    """The first three columns as red, green and blue, each from its 2nd to its 98th percentile.

    Args:
        scores: float32 [N, K]; columns that are missing count as constant.

    Returns:
        uint8 [N, 3].
    """
    main = np.zeros((len(scores), 3), np.float32)
    main[:, : scores.shape[1]] = scores[:, :3]
    if not len(main):
        return main.astype(np.uint8)
    low, high = np.percentile(main, [2, 98], axis=0)
    spread = np.maximum(high - low, 1e-12)
    colours = np.where(high - low > 1e-9, (main - low) / spread, 0.5)
    painted: RGB = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    return painted


def in_scale(values: Map, ends: tuple[float, float]) -> RGB:
    """Values as colours of the scale between its ends: uint8 [..., 3]."""
    low, high = ends
    return colour_scale(np.clip((values - low) / max(high - low, 1e-6), 0, 1))


def colour_scale(values: Map) -> RGB:
    """Values in 0..1 as colours, dark blue to yellow: uint8 [..., 3]."""
    stops = np.array(_SCALE)
    channels = [np.interp(values, stops[:, 0], stops[:, c]) for c in (1, 2, 3)]
    painted: RGB = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return painted


def enlarge(small: RGB, image: RGB) -> RGB:
    """Resize a map [h, w, 3] to an image's size (bicubic)."""
    return np.asarray(
        Image.fromarray(small).resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    )


def likeness_colours(cosine: Map, image: RGB) -> tuple[RGB, tuple[float, float]]:
    """Draw a similarity map [h, w] over its image.

    Returns:
        uint8 [H, W, 3], and the cosines at the two ends of the colour scale (3rd and 99.5th
        percentile).
    """
    low, high = (float(v) for v in np.percentile(cosine, [3, 99.5]))
    smooth = Image.fromarray(cosine).resize(
        (image.shape[1], image.shape[0]), Image.Resampling.BICUBIC
    )
    return shaded(in_scale(np.asarray(smooth), (low, high)), image), (low, high)


def shaded(colours: RGB, image: RGB) -> RGB:
    """Colours [h, w, 3] with the light and dark of an image of the same size: uint8 [h, w, 3]."""
    grey = image.mean(axis=2, keepdims=True) / 255
    mixed: RGB = np.rint(colours * (0.55 + 0.45 * grey)).astype(np.uint8)
    return mixed
