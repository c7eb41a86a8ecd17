"""Measurements of each nucleus: size, position, shape, and optical density of the stains."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathencoder import stain as stains
from pathencoder.nuclei.instances import Labels

Column = NDArray[np.float32]
T = TypeVar("T", bound=np.floating)
POSITIVE_DAB = 0.2  # mean OD of DAB from which a nucleus counts as positive
# least OD of DAB in a brown pixel, and its share of both stains
_BROWN_DAB, _BROWN_SHARE = 0.12, 0.48
_STRIP = 1024  # rows measured at a time, to save memory
_SUMS = 8


@dataclass(frozen=True)
class Measurements:
    """A row for each nucleus, in the order of their labels 1..n; every column is [n].

    Attributes:
        x: Centroid in pixels of the image; 0 is the outer edge of the first pixel.
        y: The same.
        area: In pixels.
        area_um2: In square micrometres.
        eccentricity: Of the ellipse with the same second moments; 0 is a circle.
        hematoxylin: Mean OD, unmixed from eosin (H&E) or DAB (IHC).
        dab: Mean OD; None for H&E.
        positive: Whether `dab` is at least 0.2; None for H&E.
    """

    x: Column
    y: Column
    area: Column
    area_um2: Column
    eccentricity: Column
    hematoxylin: Column
    dab: Column | None
    positive: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, kept: NDArray[np.bool_]) -> Measurements:
        """The rows where `kept` bool [n] is true."""
        columns = {
            f.name: column[kept]
            for f in fields(self)
            if (column := getattr(self, f.name)) is not None
        }
        return replace(self, **columns)


def measure(labels: Labels, image: NDArray[np.uint8], *, mpp: float, stain: str) -> Measurements:
    """Measure the nuclei of an image.

    Args:
        labels: int32 [H, W], numbered 1..n.
        image: uint8 RGB [H, W, 3].
        mpp: Micrometres per pixel.
        stain: "ihc", or anything else for H&E.

    Returns:
        A row for each nucleus.
    """
    n = int(labels.max(initial=0))
    sums = np.zeros((_SUMS, n))
    for top in range(0, len(labels), _STRIP):
        strip = slice(top, top + _STRIP)
        sums += _sums(
            labels[strip], image[strip], top, n, stains.H_DAB if stain == "ihc" else stains.HE
        )
    area = sums[0]
    x, y, xx, yy, xy, hematoxylin, second = sums[1:] / np.maximum(area, 1)
    return Measurements(
        x=_column(x + 0.5),
        y=_column(y + 0.5),
        area=_column(area),
        area_um2=_column(area * mpp * mpp),
        eccentricity=_column(_eccentricity(xx - x * x, yy - y * y, xy - x * y)),
        hematoxylin=_column(hematoxylin),
        dab=_column(second) if stain == "ihc" else None,
        positive=second >= POSITIVE_DAB if stain == "ihc" else None,
    )


def outweighs(dab: NDArray[T], hematoxylin: NDArray[T]) -> NDArray[np.bool_]:
    """Where pixels are brown rather than blue, from the OD of both stains (arrays of one shape)."""
    share = dab / np.maximum(dab + np.maximum(hematoxylin, 0), 1e-6)
    brown: NDArray[np.bool_] = (dab >= _BROWN_DAB) & (share >= _BROWN_SHARE)
    return brown


def _sums(
    labels: Labels, image: NDArray[np.uint8], top: int, n: int, pair: tuple[str, ...]
) -> NDArray[np.float64]:
    """Sums over the pixels of each nucleus in a strip of rows: 1, x, y, xx, yy, xy, both stains.

    Returns:
        float64 [8, n].
    """
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns] - 1
    x, y = columns.astype(float), rows + float(top)
    hue = stains.separate(image[rows, columns], pair)
    each = (None, x, y, x * x, y * y, x * y, hue[:, 0], hue[:, 1])
    return np.stack([np.bincount(which, values, n) for values in each])


def _eccentricity(
    xx: NDArray[np.float64], yy: NDArray[np.float64], xy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From central second moments, to which the extent of a pixel (1/12) is added."""
    xx, yy = xx + 1 / 12, yy + 1 / 12
    root = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    long, short = (xx + yy) / 2 + root, np.maximum((xx + yy) / 2 - root, 0)
    eccentricity: NDArray[np.float64] = np.sqrt(1 - short / long)
    return eccentricity


def _column(values: NDArray[np.generic]) -> Column:
    return np.asarray(values, np.float32)
