"""What the page holds: of every slide the tiles, a picture, the tissue and the provenance."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.explore.compact import NEAREST, Compact, compact
from pathencoder.explore.provenance import about_all, about_slide
from pathencoder.nuclei.polygons import corners
from pathencoder.pictures.colours import GROUPS, RGB, colour_scale, component_colours
from pathencoder.pictures.components import clusters
from pathencoder.pictures.draw import CLUSTERS
from pathencoder.pictures.ground import Ground
from pathencoder.pictures.located import Tiles
from pathencoder.tracing import trace
from pathencoder.walk import printable

_QUALITY, _TRIES = 82, 6  # of the JPEG, and how often it is made smaller
_LEAST = 20_000  # bytes of a slide's picture


@dataclass(frozen=True)
class Laid:
    """The tiles of a slide and the picture under them, both in level-0 pixels."""

    tiles: Tiles
    ground: Ground


def page_data(slides: Sequence[Laid], *, title: str, max_bytes: int) -> dict[str, Any]:
    """The page's data as JSON values; arrays are base64 of little-endian numbers.

    Args:
        slides: At least one; of one encoder.
        title: Of the page.
        max_bytes: Size of the page at most; pictures are made smaller to fit, features are not.
    """
    small = compact([laid.tiles.rows for laid in slides])
    starts = np.cumsum([0, *(len(laid.tiles.rows) for laid in slides)])
    arrays = {
        "features": _text(small.rows),
        "colours": _text(component_colours(small.scores)),
        "clusters": _text(clusters(small.scores, CLUSTERS).astype(np.uint8)),
        "scale": _text(colour_scale(np.linspace(0, 1, 256, dtype=np.float32))),
    }
    spent = sum(map(len, arrays.values())) + 11 * int(starts[-1])
    share = max(_LEAST, (max_bytes - spent) * 3 // 4 // len(slides))
    return {
        "title": printable(title),
        "about": about_all([laid.tiles for laid in slides]),
        **_measured(small, [laid.tiles for laid in slides]),
        **arrays,
        "groups": GROUPS[:CLUSTERS].tolist(),
        "nearest": NEAREST,
        "slides": [
            _slide(laid, int(start), share) for laid, start in zip(slides, starts, strict=False)
        ],
    }


def _measured(small: Compact, slides: Sequence[Tiles]) -> dict[str, Any]:
    """What the reduction of the features keeps."""
    return {
        "parts": int(small.rows.shape[1]),
        "width": int(slides[0].rows.shape[1]),
        "explained": small.explained,
        "explained3": float(small.components.shares[:3].sum()),
        "correlation": small.correlation,
        "agreement": small.agreement,
    }


def _slide(laid: Laid, first: int, share: int) -> dict[str, Any]:
    tiles, ground = laid.tiles, laid.ground
    height, width = ground.image.shape[:2]
    return {
        "name": printable(tiles.slide),
        "first": first,
        "count": len(tiles.rows),
        "corners": _text(tiles.corners.astype(np.float32)),
        "side": tiles.side,
        "step": tiles.step,
        "mpp": ground.mpp if tiles.unit == "px" else 1.0,
        "origin": list(ground.origin),
        "extent": [width * ground.scale[0], height * ground.scale[1]],
        "image": None if ground.slide is None else _jpeg(ground.image, share),
        **_outlines(ground),
        "about": about_slide(tiles),
        "notes": [printable(note) for note in (*ground.notes, *tiles.notes)],
    }


def _outlines(ground: Ground) -> dict[str, Any]:
    """The outlines of the tissue: points in level-0 pixels, and where each outline begins."""
    if ground.tissue is None or ground.mpp is None or not ground.tissue.mask.any():
        return {"outline": "", "outlineStarts": ""}
    _, rings = trace(ground.tissue.outline(ground.mpp).astype(np.int32))
    rings = rings.thinned(corners(rings, 0.6))
    points = rings.points * ground.tissue.scale + ground.tissue.origin
    return {
        "outline": _text(np.rint(points).astype(np.int32)),
        "outlineStarts": _text(rings.starts.astype(np.int32)),
    }


def _jpeg(image: RGB, most: int) -> str:
    """A picture as base64 of a JPEG, made smaller until it has at most `most` bytes."""
    picture = Image.fromarray(image)
    for _ in range(_TRIES):
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY, optimize=True)
        size = len(stream.getvalue())
        if size <= most or max(picture.size) <= 64:
            break
        factor = min(0.95, 0.97 * (most / size) ** 0.5)
        width, height = (max(1, round(n * factor)) for n in picture.size)
        picture = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    return base64.b64encode(stream.getvalue()).decode()


def _text(values: NDArray[Any]) -> str:
    """An array as base64 of its little-endian bytes."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()
