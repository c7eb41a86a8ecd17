"""Random views of labelled windows: position, flips, turns, scale, stain and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pathencoder import stain as stains

_HED = torch.from_numpy(stains.unmixing(stains.HED))  # OD to amounts; a row times it
_BACK = torch.linalg.inv(_HED)


@dataclass(frozen=True)
class Augmentation:
    """How much a window varies.

    Attributes:
        scale: Largest factor of size, either way.
        turn: Turn by any angle; else by quarters.
        stain: Largest relative change of the amount of each stain.
        shift: Largest shift of the amount of each stain, in OD.
        light: Largest relative change of brightness.
        extra: Largest change of channels beside the image: factor 1 +- extra, shift +- 2 extra.
    """

    scale: float = 1.3
    turn: bool = True
    stain: float = 0.25
    shift: float = 0.04
    light: float = 0.1
    extra: float = 0.1


def window(planes: Tensor, size: int, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """A window of size x size at a random place, flipped, turned and scaled.

    Args:
        planes: float [C, H, W]; image and targets together, so that they move together.
        size: Side in pixels.
        how: How much it varies.
        rng: Where the numbers come from.

    Returns:
        float [C, size, size]; the image is mirrored at its borders.
    """
    height, width = planes.shape[-2:]
    factor = float(np.exp(rng.uniform(-1, 1) * np.log(how.scale)))
    angle = rng.uniform(0, 2 * np.pi) if how.turn else rng.integers(4) * np.pi / 2
    flip = 1 if rng.random() < 0.5 else -1
    side = size * factor  # pixels of the image that the window covers
    centre = [rng.uniform(min(side, n) / 2, n - min(side, n) / 2) for n in (width, height)]
    cos, sin = np.cos(angle) * side, np.sin(angle) * side
    theta = torch.tensor(
        [
            [flip * cos / width, -sin / width, 2 * centre[0] / width - 1],
            [flip * sin / height, cos / height, 2 * centre[1] / height - 1],
        ],
        dtype=torch.float32,
    )
    grid = affine_grid(theta[None], [1, 1, size, size], align_corners=False)
    return grid_sample(
        planes[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )[0]


def colours(image: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """The image with other amounts of its stains and another light.

    Args:
        image: float [3, H, W], 0..255.
        how: How much it varies.
        rng: Where the numbers come from.

    Returns:
        float [3, H, W], 0..255.
    """
    factors = torch.from_numpy(rng.uniform(1 - how.stain, 1 + how.stain, 3).astype(np.float32))
    shifts = torch.from_numpy(rng.uniform(-how.shift, how.shift, 3).astype(np.float32))
    light = float(np.log10(rng.uniform(1 - how.light, 1 + how.light)))
    change = (_HED * factors) @ _BACK  # [3, 3], OD to OD
    od = -torch.log10(image.clamp(min=1) / 255)
    od = torch.einsum("chw,cd->dhw", od, change) + (shifts @ _BACK - light)[:, None, None]
    return (255 * torch.pow(10.0, -od)).clamp(0, 255)


def others(planes: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Channels beside the image, each with another factor and shift."""
    count = len(planes)
    factor, shift = (
        torch.from_numpy(rng.uniform(-1, 1, (count, 1, 1)).astype(np.float32)) for _ in range(2)
    )
    return planes * (1 + how.extra * factor) + 2 * how.extra * shift


def as_planes(image: NDArray[np.uint8], *more: NDArray[np.float32]) -> Tensor:
    """An image [H, W, 3] and maps [C, H, W] in one float tensor [3 + C, H, W]."""
    parts = [torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)]
    return torch.cat([*parts, *(torch.from_numpy(m) for m in more)])
