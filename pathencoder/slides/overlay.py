"""A picture of a slide with its tissue, its tiles and what was left out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathencoder.slides.filters import Mask, dilated
from pathencoder.slides.grid import Grid
from pathencoder.slides.own_picture import save_picture
from pathencoder.slides.reader import RGB
from pathencoder.slides.tissue import PEN, SHADOW, UNSCANNED, TissueMask

LEAST, MOST = 1000, 1600  # pixels of the longer side
_TISSUE, _TILE = (0, 140, 60), (20, 40, 190)
_DROPPED = {PEN: (255, 140, 0), SHADOW: (190, 0, 190), UNSCANNED: (110, 110, 110)}
_MARGIN, _LINE = 16, 26


def write_overlay(tissue: TissueMask, grid: Grid, file: Path, *, title: str) -> Path:
    """Write the picture of a slide's tissue and tiles.

    Args:
        tissue: The result of `find_tissue`, with its picture of the slide.
        grid: The tiles that were kept.
        file: .jpg or .png; an existing file is replaced when the new one is complete.
        title: The first line under the picture: the slide's name.

    Returns:
        The file.

    Raises:
        StoreError: It cannot be written.
    """
    save_picture(draw_overlay(tissue, grid, title=title), file)
    return file


def draw_overlay(tissue: TissueMask, grid: Grid, *, title: str) -> Image.Image:
    """The slide with its tissue outlined, kept tiles as squares and dropped areas tinted.

    A legend with a scale bar lies below. The slide's longer side has 1,000 to 1,600 px.

    Args:
        tissue: The result of `find_tissue`.
        grid: The tiles that were kept.
        title: The first line of the legend.
    """
    height, width = tissue.mask.shape
    across, down = width * tissue.scale[0], height * tissue.scale[1]  # level-0 pixels
    size = _size(tissue, across, down)
    unit = across / size[0]  # level-0 pixels a pixel of the picture
    image = np.asarray(_base(tissue, size))
    for name, mask in tissue.dropped.items():
        image = _tinted(image, _enlarged(mask, size), _DROPPED.get(name, (0, 0, 0)))
    outline = _enlarged(tissue.outline(grid.mpp), size)
    edge = dilated(outline, 1) & dilated(~outline, 1)
    image = np.where(edge[..., None], np.array(_TISSUE, np.uint8), image)
    picture = _with_tiles(Image.fromarray(image), tissue.origin, grid, unit)
    return _with_legend(picture, tissue, grid, unit, title)


def _size(tissue: TissueMask, across: float, down: float) -> tuple[int, int]:
    """Width and height of the slide in the picture."""
    longer = max(tissue.mask.shape) if tissue.picture is None else max(tissue.picture.shape[:2])
    scale = min(max(longer, LEAST), MOST) / max(across, down)
    return max(1, round(across * scale)), max(1, round(down * scale))


def _base(tissue: TissueMask, size: tuple[int, int]) -> Image.Image:
    if tissue.picture is None:
        return Image.new("RGB", size, "white")
    return Image.fromarray(tissue.picture).resize(size, Image.Resampling.LANCZOS)


def _enlarged(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at the size of the picture: bool [h, w]."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) > 127


def _tinted(image: RGB, mask: Mask, colour: tuple[int, int, int]) -> RGB:
    """The image with the pixels of a mask mixed half with a colour."""
    tinted = image.copy()
    tinted[mask] = (image[mask].astype(np.uint16) + np.array(colour, np.uint16)) // 2
    return tinted


def _with_tiles(
    image: Image.Image, origin: tuple[int, int], grid: Grid, unit: float
) -> Image.Image:
    """Draw the tiles as thin squares, or as a tint where they are too small for squares."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    side = grid.side / unit
    for x, y in grid.coords.tolist():
        left, top = (x - origin[0]) / unit, (y - origin[1]) / unit
        box = (left, top, left + side, top + side)
        if side >= 6:
            draw.rectangle(box, outline=(*_TILE, 170))
        else:
            draw.rectangle(box, fill=(*_TILE, 60))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _with_legend(
    picture: Image.Image, tissue: TissueMask, grid: Grid, unit: float, title: str
) -> Image.Image:
    """The picture with its title, the meaning of the colours, notes and a scale bar below."""
    entries = _entries(tissue, grid)
    notes = [
        line for note in (*tissue.notes, *grid.notes) for line in _wrapped(note, picture.width)
    ]
    lines = 1 + -(-len(entries) // _columns(picture.width)) + len(notes)
    height = picture.height + _MARGIN + (lines + 1) * _LINE
    page = Image.new("RGB", (picture.width, height), "white")
    page.paste(picture)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    top = picture.height + _MARGIN // 2
    draw.text((_MARGIN, top), title, fill="black", font=ImageFont.load_default(18))
    top += _LINE
    for place, (colour, text) in enumerate(entries):
        row, column = divmod(place, _columns(picture.width))
        x, y = _MARGIN + column * _COLUMN, top + row * _LINE
        draw.rectangle((x, y + 3, x + 14, y + 17), fill=colour)
        draw.text((x + 22, y), text, fill="black", font=font)
    top += -(-len(entries) // _columns(picture.width)) * _LINE
    for line in notes:
        draw.text((_MARGIN, top), line, fill=(60, 60, 60), font=font)
        top += _LINE
    _draw_scale(draw, top, picture.width, unit * grid.mpp)
    return page


_COLUMN = 320  # pixels a legend entry needs


def _columns(width: int) -> int:
    return max(1, (width - _MARGIN) // _COLUMN)


def _entries(tissue: TissueMask, grid: Grid) -> list[tuple[tuple[int, int, int], str]]:
    """The colours and their meaning."""
    side = grid.tile_px * grid.target_mpp
    entries = [
        (_TISSUE, f"tissue: {100 * tissue.mask.mean():.1f} % of the slide"),
        (_TILE, f"{len(grid.coords):,} tiles of {side:.0f} um"),
    ]
    for name, mask in tissue.dropped.items():
        entries.append((_DROPPED.get(name, (0, 0, 0)), f"{name}: {100 * mask.mean():.1f} %"))
    return entries


def _wrapped(text: str, width: int) -> list[str]:
    """A note in lines that fit the picture, at about 9 pixels a character."""
    import textwrap

    return textwrap.wrap(text, max(20, (width - 2 * _MARGIN) // 9))


def _draw_scale(draw: ImageDraw.ImageDraw, top: int, width: int, mpp: float) -> None:
    """A bar of a round length, about a fifth of the width."""
    length = width * mpp / 5
    power = 10.0 ** math.floor(math.log10(length))
    length = max(n * power for n in (1, 2, 5) if n * power <= length * (1 + 1e-9))
    right = _MARGIN + length / mpp
    draw.rectangle((_MARGIN, top + 8, right, top + 12), fill="black")
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    draw.text((right + 10, top), text, fill="black", font=ImageFont.load_default(16))
