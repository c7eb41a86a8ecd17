"""Pictures in a row with titles, captions, colour scales, marks and scale bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathencoder.pictures.colours import RGB, colour_scale

_GAP, _HEAD, _FOOT = 24, 52, 64
_ENTRY = 22  # height of a legend entry
_SCALE_WIDTH = 300  # smallest width of a colour scale with its labels, in pixels


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        image: uint8 RGB [H, W, 3].
        title: The line above it.
        caption: The line below it.
        scale: Values at the two ends of the colour scale; None: no scale is drawn.
        legend: Colours and their meaning, drawn below.
        ends: What the two ends of the colour scale mean.
    """

    image: RGB
    title: str
    caption: str = ""
    scale: tuple[float, float] | None = None
    legend: Sequence[tuple[tuple[int, int, int], str]] = ()
    ends: tuple[str, str] = ("different", "similar")


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


def side_by_side(panels: Sequence[Panel], title: str, *, notes: Sequence[str] = ()) -> Image.Image:
    """Draw panels in a row on white, with titles above, captions below and notes at the end."""
    widths = [_column(p) for p in panels]
    height = max(p.image.shape[0] + _ENTRY * len(p.legend) for p in panels)
    width = max(sum(widths) + _GAP * (len(panels) + 1), 2 * _GAP + _length(title, 24))
    lines = [line for note in notes for line in _wrapped(_printed(note), width - 2 * _GAP)]
    bottom = height + 2 * _HEAD + _FOOT
    page = Image.new("RGB", (width, bottom + _ENTRY * len(lines)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, 16), _printed(title), fill="black", font=_font(24))
    left = _GAP
    for panel, column in zip(panels, widths, strict=True):
        draw.text((left, _HEAD + 24), _printed(panel.title), fill="black", font=_font(19))
        top = 2 * _HEAD
        page.paste(Image.fromarray(panel.image), (left, top))
        below = top + panel.image.shape[0] + 10
        if panel.scale is not None:
            width = max(panel.image.shape[1], _SCALE_WIDTH)
            named = zip(panel.ends, panel.scale, strict=True)
            below = _draw_scale(page, left, below, width, [f"{n} ({v:.2f})" for n, v in named])
        draw.text((left, below), _printed(panel.caption), fill=(70, 70, 70), font=_font(15))
        for place, (colour, text) in enumerate(panel.legend):
            y = below + _ENTRY * (place + 1)
            draw.rectangle((left, y + 2, left + 14, y + 16), fill=colour)
            draw.text((left + 22, y), _printed(text), fill=(70, 70, 70), font=_font(15))
        left += column + _GAP
    for place, line in enumerate(lines):
        at = (_GAP, bottom + _ENTRY * place - 8)
        draw.text(at, line, fill=(70, 70, 70), font=_font(15))
    return page


def _wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines of at most `width` pixels, or of one word."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _length(longer, 15) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _column(panel: Panel) -> int:
    """Width of a panel: that of its picture or of its text."""
    scale = _SCALE_WIDTH if panel.scale is not None else 0
    width: int = panel.image.shape[1]
    entries = [22 + _length(text, 15) for _, text in panel.legend]
    return max(width, *entries, _length(panel.title, 19), _length(panel.caption, 15), scale)


def _draw_scale(page: Image.Image, left: int, top: int, width: int, ends: Sequence[str]) -> int:
    """Draw the colour scale with what its ends mean; returns the y of the next text."""
    first, last = ends
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


def _round_length(length: float) -> float:
    """The largest number of the form 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(n * power for n in (1, 2, 5) if n * power <= length)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
