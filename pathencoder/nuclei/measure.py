"""What is told of each nucleus: size, place, form, and how much of each stain it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder import stain as stains
from pathencoder.nuclei.instances import Labels

Column = NDArray[np.float32]
POSITIVE_DAB = 0.2  # mean OD of DAB from which a nucleus counts as positive


@dataclass(frozen=True)
class Measurements:
    """One row for each nucleus, in the order of their labels 1..n; every column is [n].

    x, y: centroid in pixels of the image (0 is the outer edge of the first pixel). area: pixels; area_um2: square micrometres.
    eccentricity: of the ellipse with the same second moments, 0 is a circle. hematoxylin, dab: mean OD; dab and positive are None for
    an H&E image, where hematoxylin is measured against eosin.
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


def measure(labels: Labels, image: NDArray[np.uint8], *, mpp: float, stain: str) -> Measurements:
    """Measure the nuclei of a label map int32 [H, W] numbered 1..n in the image uint8 [H, W, 3] that it belongs to."""
    rows, columns = np.nonzero(labels)
    which = labels[rows, columns] - 1
    n = int(labels.max(initial=0))
    area = np.bincount(which, minlength=n)

    def mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.bincount(which, np.asarray(values, np.float64), n) / np.maximum(area, 1)

    x, y = mean(columns), mean(rows)
    dx, dy = columns - x[which], rows - y[which]
    hue = stains.separate(image[rows, columns], stains.H_DAB if stain == "ihc" else stains.HE)
    hematoxylin, second = mean(hue[:, 0]), mean(hue[:, 1])
    return Measurements(
        x=_column(x + 0.5),
        y=_column(y + 0.5),
        area=_column(area),
        area_um2=_column(area * mpp * mpp),
        eccentricity=_column(_eccentricity(mean(dx * dx), mean(dy * dy), mean(dx * dy))),
        hematoxylin=_column(hematoxylin),
        dab=_column(second) if stain == "ihc" else None,
        positive=second >= POSITIVE_DAB if stain == "ihc" else None,
    )


def _eccentricity(xx: NDArray[np.float64], yy: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """From central second moments; a pixel's own extent (1/12) is part of them."""
    xx, yy = xx + 1 / 12, yy + 1 / 12
    spread = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    long, short = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 0)
    eccentricity: NDArray[np.float64] = np.sqrt(1 - short / long)
    return eccentricity


def _column(values: NDArray[np.generic]) -> Column:
    return np.asarray(values, np.float32)
