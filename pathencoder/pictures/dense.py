"""Dense features of one image, and the similarity of their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.pictures.colours import RGB, Map

if TYPE_CHECKING:
    from torch import Tensor

    from pathencoder.encoder import Encoder


def dense_map(encoder: Encoder, image: RGB, *, zoom: float = 1.5) -> Map:
    """Dense features of an image.

    The image is enlarged `zoom` times, so that a cell spans less of it than the network's stride,
    and read in four orientations, whose features are averaged: tissue has no up and down. A
    transformer gives its patch tokens. A CNN gives its maps of strides 8 and more, concatenated on
    the grid of the finest with equal weights: coarse maps separate tissues, fine ones locate their
    borders.

    Args:
        encoder: The encoder.
        image: uint8 RGB [H, W, 3].
        zoom: Factor by which the image is enlarged.

    Returns:
        float32 [h, w, C], each channel centred on the image's mean.
    """
    from pathencoder.wrapped import evaluating

    with evaluating(encoder):
        unit = _stride(encoder)
        height, width = (max(1, round(n * zoom / unit)) * unit for n in image.shape[:2])
        big = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        turned = [
            np.rot90(_joined(encoder, np.rot90(big, turns).copy()), -turns) for turns in range(4)
        ]
    features: Map = np.mean(turned, axis=0, dtype=np.float32)
    return features


def _joined(encoder: Encoder, image: RGB) -> Map:
    """Feature maps of one image, centred, with equal weights and on one grid: float32 [h, w, C]."""
    import torch
    from torch.nn.functional import interpolate

    with torch.inference_mode():
        x = encoder.transform.normalise(image[None]).to(encoder.device, encoder.dtype)
        maps = [m.float() for m in _maps(encoder, x)]
        centred = [m - m.mean(dim=(2, 3), keepdim=True) for m in maps]
        scaled = [m / m.norm(dim=1).mean().clamp(min=1e-6) for m in centred]
        joined = torch.cat(
            [interpolate(m, size=scaled[0].shape[-2:], mode="bilinear") for m in scaled], dim=1
        )
    features: Map = joined[0].permute(1, 2, 0).cpu().numpy()
    return features


def _maps(encoder: Encoder, x: Tensor) -> list[Tensor]:
    """Feature maps [1, C, h, w], fine to coarse: one of tokens, or a CNN's of strides from 8 on."""
    from pathencoder.network import has_tokens

    if has_tokens(encoder.network):
        return [encoder(x).dense]
    maps, strides = encoder.pyramid(x)
    return [m for m, stride in zip(maps, strides, strict=True) if stride >= 8] or maps[-1:]


def likeness(features: Map, row: int, column: int) -> Map:
    """Cosine similarity of every cell to one cell and its eight neighbours.

    Args:
        features: Centred float32 [h, w, C].
        row: Of the cell.
        column: Of the cell.

    Returns:
        float32 [h, w], in -1..1.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=2, keepdims=True), 1e-6)
    chosen = unit[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].mean(axis=(0, 1))
    cosine: Map = (unit @ (chosen / max(float(np.linalg.norm(chosen)), 1e-6))).astype(np.float32)
    return cosine


def check_point(image: RGB, x: int, y: int) -> None:
    """Check that a point (x, y) in pixels lies inside an image.

    Raises:
        ConfigError: It lies outside.
    """
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise ConfigError(f"point {x},{y} lies outside the image, which is {width} x {height} px")


def cell_of(features: Map, image: RGB, x: int, y: int) -> tuple[int, int]:
    """Row and column of the cell that holds pixel (x, y) of the image.

    Raises:
        ConfigError: The point is outside the image.
    """
    check_point(image, x, y)
    height, width = image.shape[:2]
    return y * features.shape[0] // height, x * features.shape[1] // width


def _stride(encoder: Encoder) -> int:
    """Width of one cell of the encoder's dense features in pixels."""
    import torch

    size = encoder.spec.input_size
    with torch.inference_mode():
        dense = encoder(
            torch.zeros(1, 3, size, size, device=encoder.device, dtype=encoder.dtype)
        ).dense
    return size // int(dense.shape[-1])
