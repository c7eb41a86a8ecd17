"""All maps of an encoder's pyramid on one grid of 4 px, and linear decoders on them.

An image is cut into windows of the encoder's input size. The enlarged maps of a whole image would
take hundreds of MB and most of the time. They are never made: a linear decoder and bilinear
enlargement can change places, and for a fit only some positions are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from pathencoder.encoder import Encoder

Floats = NDArray[np.float32]
GRID = 4  # px between two positions, at the scale of the set
_BATCH = 8  # windows


@dataclass(frozen=True)
class Decoder:
    """A 1 x 1 convolution and a threshold.

    Attributes:
        weights: float32 [C]; they include the standardisation.
        bias: Of the convolution.
        threshold: Of the probability.
    """

    weights: Floats
    bias: float
    threshold: float = 0.5


@dataclass(frozen=True)
class Maps:
    """The maps of one image of H x W px, as on a grid [ceil(H / 4), ceil(W / 4)] of positions.

    Attributes:
        levels: For each level of the pyramid float32 [windows, C, h, w].
        shape: Of the grid.
        windows: Rows and columns of windows.
        cells: Grid positions along a window.
    """

    levels: list[Tensor]
    shape: tuple[int, int]
    windows: tuple[int, int]
    cells: int

    def at(self, places: NDArray[np.int64]) -> Floats:
        """Features [P, C] at positions, given as indices into the flattened grid [P]."""
        rows, columns = np.divmod(places, self.shape[1])
        window = rows // self.cells * self.windows[1] + columns // self.cells
        order = np.argsort(window, kind="stable")
        inside = np.stack([columns % self.cells, rows % self.cells], 1)
        # the place of a position's centre in its window, from -1 to 1
        where = torch.from_numpy(2 * (inside + 0.5) / self.cells - 1).float()
        parts = []
        for number in np.unique(window).tolist():
            chosen = order[window[order] == number]
            parts.append(_sample(self.levels, number, where[torch.from_numpy(chosen)]))
        found = np.empty((len(places), sum(level.shape[1] for level in self.levels)), np.float32)
        found[order] = np.concatenate(parts)
        return found

    def probabilities(self, decoders: Sequence[Decoder]) -> Floats:
        """What decoders find: [K, h, w] on the grid."""
        weights = torch.from_numpy(np.stack([d.weights for d in decoders]))
        size, total, start = (self.cells, self.cells), torch.zeros(()), 0
        for level in self.levels:
            own = weights[:, start : start + level.shape[1]]
            start += level.shape[1]
            logits = torch.einsum("kc,nchw->nkhw", own, level)
            total = total + interpolate(logits, size=size, mode="bilinear", align_corners=False)
        down, across = self.windows
        joined = total.reshape(down, across, len(decoders), *size).permute(2, 0, 3, 1, 4)
        whole = joined.reshape(len(decoders), down * size[0], across * size[1])
        bias = torch.tensor([d.bias for d in decoders])[:, None, None]
        found: Floats = torch.sigmoid(whole + bias).numpy()[:, : self.shape[0], : self.shape[1]]
        return found


def maps_of(encoder: Encoder, image: NDArray[np.uint8]) -> Maps:
    """Run the windows of an image through the encoder.

    Args:
        encoder: It sees windows of its input size.
        image: uint8 [H, W, 3]; mirrored at its borders, or repeated where it is smaller than a
            window.

    Returns:
        Its maps.
    """
    side = encoder.spec.input_size
    height, width = image.shape[:2]
    padded = np.pad(
        image,
        ((0, -height % side), (0, -width % side), (0, 0)),
        mode="symmetric" if min(height, width) >= side else "wrap",
    )
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    windows = padded.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    parts = [_levels(encoder, windows[i : i + _BATCH]) for i in range(0, len(windows), _BATCH)]
    levels = [torch.cat(level) for level in zip(*parts, strict=True)]
    return Maps(levels, (-(-height // GRID), -(-width // GRID)), (rows, columns), side // GRID)


def _levels(encoder: Encoder, windows: NDArray[np.uint8]) -> list[Tensor]:
    with torch.inference_mode():
        x = encoder.transform.normalise(np.ascontiguousarray(windows)).to(
            encoder.device, encoder.dtype
        )
        maps, _ = encoder.pyramid(x)
        return [m.float().cpu() for m in maps]


def _sample(levels: Sequence[Tensor], window: int, where: Tensor) -> Floats:
    """Features [P, C] at places (x, y) of one window; as `interpolate` gives them on the grid."""
    found = [
        grid_sample(
            level[window : window + 1].contiguous(),
            where[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )[0, :, 0]
        for level in levels
    ]
    sampled: Floats = torch.cat(found).T.numpy()
    return sampled
