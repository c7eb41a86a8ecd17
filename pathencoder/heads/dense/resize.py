"""Maps and label maps at another size, without a shift to one side.

Where a map shrinks by an even factor, the centre of a pixel lies on the corner of four: the nearest
one is always that at the same side, and objects would move by a quarter of a pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def interpolated(maps: Floats, shape: tuple[int, int]) -> Floats:
    """Maps [C, h, w] interpolated linearly at the centres of H x W pixels: [C, H, W]."""
    if maps.shape[1:] == shape:
        return maps
    found = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(maps))[None], shape, mode="bilinear"
    )
    return found[0].numpy()


def resized_labels(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """A label map [h, w] at a size, width and height.

    A pixel takes the most frequent label of four points, half way from its centre to its corners.
    Of two that are as frequent, pixels take by turns that of the upper left and of the lower right.
    """
    if labels.shape == size[::-1]:
        return labels
    rows, columns = (_halves(*axis) for axis in zip(labels.shape, size[::-1], strict=True))
    samples = np.stack([labels[np.ix_(row, column)] for row in rows for column in columns])
    often = np.stack([(samples == one).sum(0) for one in samples])
    first, last = often.argmax(0), 3 - often[::-1].argmax(0)
    turns = np.indices(first.shape).sum(0) % 2 == 0
    chosen = np.where(turns, first, last)
    found: NDArray[np.int32] = np.take_along_axis(samples, chosen[None], 0)[0]
    return found


def _halves(coarse: int, fine: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixels of `coarse` ones in which a quarter and three quarters of each of `fine` ones lie.

    On an edge between two pixels it is the outer one, for both alike.
    """
    quarter, three_quarters = ((np.arange(fine) + part) * coarse / fine for part in (0.25, 0.75))
    before, after = np.ceil(quarter) - 1, np.floor(three_quarters)
    return before.astype(np.int64).clip(0), after.astype(np.int64).clip(0, coarse - 1)
