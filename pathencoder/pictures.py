"""Pictures of an encoder's dense features of one image.

Features as colours, and their similarity to a chosen point. Drawn with Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pathencoder.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from pathencoder.encoder import Encoder

RGB = NDArray[np.uint8]
Map = NDArray[np.float32]

_GAP, _HEAD, _FOOT = 24, 52, 64
_SCALE_WIDTH = 300  # smallest width of a colour scale with its labels, in pixels
# Dark blue to green to yellow, perceptually uniform (after matplotlib's viridis): position, red,
# green, blue
_SCALE = (
    (0.0, 68, 1, 84),
    (0.25, 59, 82, 139),
    (0.5, 33, 145, 140),
    (0.75, 94, 201, 98),
    (1.0, 253, 231, 37),
)


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        image: uint8 RGB [H, W, 3].
        title: The line above it.
        caption: The line below it.
        scale: Values at the two ends of the colour scale; None: no scale is drawn.
    """

    image: RGB
    title: str
    caption: str = ""
    scale: tuple[float, float] | None = None


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


def pca_colours(features: Map) -> RGB:
    """The first three principal components as red, green and blue.

    Similar colours mean similar features. Each component is scaled from its 2nd to its 98th
    percentile. Signs are fixed, so that the same features give the same colours.

    Args:
        features: float32 [h, w, C].

    Returns:
        uint8 [h, w, 3].
    """
    flat = features.reshape(-1, features.shape[2])
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    flat = flat - flat.mean(axis=0)
    _, axes = np.linalg.eigh(flat.T @ flat)
    main = axes[:, :-4:-1]
    scores = flat @ main * np.sign(main.sum(axis=0) + 1e-12)
    low, high = np.percentile(scores, [2, 98], axis=0)
    colours = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    painted: RGB = np.rint(colours.reshape(*features.shape[:2], 3) * 255).astype(np.uint8)
    return painted


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
    scaled = np.clip((np.asarray(smooth) - low) / max(high - low, 1e-6), 0, 1)
    grey = image.mean(axis=2, keepdims=True) / 255
    shaded = colour_scale(scaled.astype(np.float32)) * (0.55 + 0.45 * grey)
    return np.rint(shaded).astype(np.uint8), (low, high)


def mark(image: RGB, x: int, y: int) -> RGB:
    """Draw a circle and a cross at (x, y), white on black: visible on any colour."""
    picture = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(picture)
    radius = max(8, image.shape[1] // 48)
    for colour, width in (("black", 5), ("white", 2)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            draw.line(
                (x + dx * radius, y + dy * radius, x + dx * radius * 1.7, y + dy * radius * 1.7),
                fill=colour,
                width=width,
            )
    return np.asarray(picture)


def with_scale_bar(image: RGB, mpp: float) -> RGB:
    """Draw a scale bar of a round length, about a fifth of the width, in the lower left corner."""
    length = _round_length(image.shape[1] * mpp / 5)
    picture = Image.fromarray(image.copy())
    draw = ImageDraw.Draw(picture)
    label, font = f"{length:g} um", _font(16)  # the font has no mu
    bottom, right = image.shape[0] - 14, 14 + length / mpp
    draw.rectangle(
        (10, bottom - 26, max(right, 14 + draw.textlength(label, font)) + 6, bottom + 10),
        fill="white",
    )
    draw.rectangle((14, bottom, right, bottom + 5), fill="black")
    draw.text((14, bottom - 24), label, fill="black", font=font)
    return np.asarray(picture)


def side_by_side(panels: Sequence[Panel], title: str) -> Image.Image:
    """Draw panels in a row on white, with titles above and captions below."""
    widths = [_column(p) for p in panels]
    height = max(p.image.shape[0] for p in panels)
    width = max(sum(widths) + _GAP * (len(panels) + 1), 2 * _GAP + _length(title, 24))
    page = Image.new("RGB", (width, height + 2 * _HEAD + _FOOT), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, 16), _printed(title), fill="black", font=_font(24))
    left = _GAP
    for panel, column in zip(panels, widths, strict=True):
        draw.text((left, _HEAD + 24), _printed(panel.title), fill="black", font=_font(19))
        top = 2 * _HEAD
        page.paste(Image.fromarray(panel.image), (left, top))
        below = top + panel.image.shape[0] + 10
        if panel.scale is not None:
            below = _draw_scale(
                page, left, below, max(panel.image.shape[1], _SCALE_WIDTH), panel.scale
            )
        draw.text((left, below), _printed(panel.caption), fill=(70, 70, 70), font=_font(15))
        left += column + _GAP
    return page


def _column(panel: Panel) -> int:
    """Width of a panel: that of its picture or of its text."""
    scale = _SCALE_WIDTH if panel.scale is not None else 0
    width: int = panel.image.shape[1]
    return max(width, _length(panel.title, 19), _length(panel.caption, 15), scale)


def _draw_scale(
    page: Image.Image, left: int, top: int, width: int, ends: tuple[float, float]
) -> int:
    """Draw the colour scale with the values at its ends; returns the y of the next text."""
    first, last = f"different ({ends[0]:.2f})", f"similar ({ends[1]:.2f})"
    before, after = _length(first, 14) + 8, _length(last, 14) + 8
    bar = colour_scale(
        np.tile(np.linspace(0, 1, max(width - before - after, 1), dtype=np.float32), (14, 1))
    )
    page.paste(Image.fromarray(bar), (left + before, top + 2))
    draw = ImageDraw.Draw(page)
    draw.text((left, top), first, fill="black", font=_font(14))
    draw.text((left + width - after + 8, top), last, fill="black", font=_font(14))
    return top + 22


def _length(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return int(_font(size).getlength(_printed(text))) + 1


def _printed(text: str) -> str:
    """The text with question marks for characters that Pillow's built-in font lacks."""
    return text.encode("ascii", "replace").decode()


def _stride(encoder: Encoder) -> int:
    """Width of one cell of the encoder's dense features in pixels."""
    import torch

    size = encoder.spec.input_size
    with torch.inference_mode():
        dense = encoder(
            torch.zeros(1, 3, size, size, device=encoder.device, dtype=encoder.dtype)
        ).dense
    return size // int(dense.shape[-1])


def _round_length(length: float) -> float:
    """The largest number of the form 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(n * power for n in (1, 2, 5) if n * power <= length)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
