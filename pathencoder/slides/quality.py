"""The quality of a slide's tiles: blur, folds, pen and the share of tissue, as numbers a tile.

None of them is a verdict: sort the tiles of a slide by one, look, and choose a limit.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.slides.reader import RGB
from pathencoder.slides.tissue import PEN, TissueMask

# name of a column -> what it means, as feature files hold it
COLUMNS: Final = {
    "qc_blur": (
        "size of the finest detail: sigma in um of the Gaussian that would blur white noise to the"
        " tile's ratio of gradient to Laplacian; higher is more blurred; NaN: no contrast"
    ),
    "qc_pen": "share of the tile that is pen, at 8 um per pixel, 0 to 1",
    "qc_fold": (
        "saturation minus brightness, the 95th percentile of pixels of 8 um, -1 to 1; higher is"
        " darker and more saturated, as in folds, but also in dense DAB"
    ),
    "tissue": "share of the tile that is tissue, or in the areas that were drawn, 0 to 1",
}
_PACKED = struct.Struct("<2f")
TAG_BYTES = _PACKED.size
_FOLD_UM = 8.0  # micrometres per pixel at which folds are looked for
_FOLD_PERCENTILE = 95
_MOST_SHARES = 4_000_000  # places whose share is found at a time
_LEAST_CONTRAST = 2.0  # grey levels: less is the noise of a camera


class Quality(NamedTuple):
    """What the pixels of a tile show; see `COLUMNS`."""

    blur: float
    fold: float

    def pack(self) -> bytes:
        """The values as `TAG_BYTES` bytes."""
        return _PACKED.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Quality:
        """The values that `pack` made these bytes of."""
        return cls(*_PACKED.unpack(data))


UNKNOWN = Quality(float("nan"), float("nan"))


def quality_of(tile: RGB, mpp: float) -> Quality:
    """Blur and folds of a tile.

    Args:
        tile: uint8 [h, w, 3].
        mpp: Micrometres per pixel of the tile.
    """
    image = Image.fromarray(tile)
    return Quality(_blur(image, mpp), _fold(image, mpp))


def _blur(image: Image.Image, mpp: float) -> float:
    """The scale of the finest detail in micrometres.

    White noise that a Gaussian of `sigma` has blurred has mean squares of its gradient and its
    Laplacian in the ratio of sigma^2 to 2, whatever its contrast. Pairs of pixels are averaged
    first, which removes most of the camera's noise.
    """
    if min(image.size) < 8:
        return float("nan")
    # the sum of three rounded channels, since one rounded grey would add noise of its own
    grey = np.asarray(image.reduce(2)).sum(2, dtype=np.uint16).astype(np.float32) / 3
    if float(grey.std()) < _LEAST_CONTRAST:
        return float("nan")
    middle = grey[1:-1, 1:-1]
    left, right, above, below = grey[1:-1, :-2], grey[1:-1, 2:], grey[:-2, 1:-1], grey[2:, 1:-1]
    laplacian = left + right + above + below - 4 * middle
    across, down = right - left, below - above
    gradient = (float(np.vdot(across, across)) + float(np.vdot(down, down))) / 4
    return 2 * mpp * float(np.sqrt(2 * gradient / max(float(np.vdot(laplacian, laplacian)), 1e-6)))


def _fold(image: Image.Image, mpp: float) -> float:
    """Saturation minus brightness, high where tissue lies double (Palokangas et al., 2007)."""
    factor = max(1, round(_FOLD_UM / mpp))
    small = np.asarray(image.reduce(factor), np.float32)
    highest, lowest = small.max(2), small.min(2)
    saturation = (highest - lowest) / np.maximum(highest, 1)
    return float(np.percentile(saturation - small.mean(2) / 255, _FOLD_PERCENTILE))


def columns_of(
    found: NDArray[np.float32],
    corners: NDArray[np.int64],
    side: float,
    *,
    tissue: TissueMask,
    pen: TissueMask,
) -> dict[str, NDArray[np.float32]]:
    """The columns of a slide's feature file.

    Args:
        found: `Quality` of each tile, [N, 2].
        corners: Of the tiles, [N, 2] in level-0 pixels.
        side: Of a tile in level-0 pixels.
        tissue: Of which the share is wanted: the tissue, or the areas that were drawn.
        pen: The tissue that was found, with its pen.

    Returns:
        By the names in `COLUMNS`, float32 [N].
    """
    return {
        "qc_blur": found[:, 0],
        "qc_pen": _shares(pen, corners, side, of=PEN),
        "qc_fold": found[:, 1],
        "tissue": _shares(tissue, corners, side),
    }


def _shares(
    mask: TissueMask, corners: NDArray[np.int64], side: float, of: str | None = None
) -> NDArray[np.float32]:
    """The share of a mask in each tile, which lie on few rows and columns."""
    shares = np.zeros(len(corners), np.float32)
    columns, column = np.unique(corners[:, 0], return_inverse=True)
    rows, row = np.unique(corners[:, 1], return_inverse=True)
    step = max(1, _MOST_SHARES // max(1, len(columns)))
    for start in range(0, len(rows), step):
        xs, ys = columns.astype(np.float64), rows[start : start + step].astype(np.float64)
        here = np.flatnonzero((row >= start) & (row < start + step))
        shares[here] = mask.share(xs, ys, side, of=of)[row[here] - start, column[here]]
    return shares
