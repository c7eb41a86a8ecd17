"""What the page says of how the features were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.pictures.located import Tiles
from pathencoder.walk import printable

_SAME = ("encoder", "extractor", "revision", "sha256", "output", "views")  # else rows differ
_ALL = {
    "encoder": "Encoder",
    "extractor": "Encoder",
    "revision": "Revision",
    "sha256": "Weights, sha256",
    "output": "Output",
    "views": "Views, averaged",
    "transform": "Preprocessing",
    "precision": "Precision",
    "target_mpp": "Tiles read at, \u00b5m/px",
    "tile_px": "Tile, px",
}
_EACH = {
    "slide_mpp": "Slide, \u00b5m/px",
    "slide_mpp_source": "Scale from",
    "vendor": "Format",
    "tissue": "Tissue",
    "min_tissue": "Least share of tissue",
    "overlap_px": "Overlap, px",
    "failed_count": "Tiles not readable",
    "layout": "Layout",
    "created": "Encoded",
    "pathencoder_version": "pathencoder",
}


def check_comparable(slides: Sequence[Tiles]) -> None:
    """Refuse features that cannot be compared.

    Raises:
        ConfigError: Two files are of different encoders, outputs or widths.
    """
    first = slides[0]
    for other in slides[1:]:
        for name in _SAME:
            plain = 1 if name == "views" else None  # files state only what differs from it
            one, two = (tiles.attributes.get(name, plain) for tiles in (first, other))
            if one is not None and two is not None and one != two:
                raise ConfigError(
                    f"{first.file} and {other.file} cannot be compared: {name} {one} and {two}."
                    " Write a page for each"
                )
        if first.rows.shape[1] != other.rows.shape[1]:
            raise ConfigError(
                f"{first.file} and {other.file} cannot be compared: features of"
                f" {first.rows.shape[1]} and {other.rows.shape[1]} numbers. Write a page for each"
            )


def about_all(slides: Sequence[Tiles]) -> list[list[str]]:
    """Names and values that hold for the page; a value that differs is listed with its others."""
    found = list[list[str]]()
    for name, words in _ALL.items():
        if name == "extractor" and found:
            continue  # STAMP's name of the encoder
        values = dict.fromkeys(_value(s.attributes[name]) for s in slides if name in s.attributes)
        if values:
            found.append([words, ", ".join(values)])
    return found


def about_slide(tiles: Tiles) -> list[list[str]]:
    """Names and values of one slide; folders are left out, a page may be given to others."""
    made = [
        [words, _value(tiles.attributes[name])]
        for name, words in _EACH.items()
        if name in tiles.attributes
    ]
    notes = str(tiles.attributes.get("notes") or "").splitlines()
    return [
        ["Feature file", printable(tiles.file.name)],
        *made,
        *(["Noted when encoded", printable(note)] for note in notes),
    ]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
