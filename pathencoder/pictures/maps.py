"""Maps of a slide's tiles: features as colours, clusters, and the similarity to one tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.pictures import components
from pathencoder.pictures.colours import GROUPS, RGB, Map, component_colours, in_scale, shaded
from pathencoder.pictures.ground import Ground
from pathencoder.pictures.located import Tiles
from pathencoder.pictures.panels import Panel, mark, side_by_side, with_scale_bar
from pathencoder.slides.filters import dilated

KINDS = ("pca", "clusters", "similarity", "values")
PARTS = 64  # principal components that clusters are made of
_OUTLINE = (0, 140, 60)


@dataclass(frozen=True)
class Painted:
    """A colour for every tile, and what the colours mean.

    Attributes:
        colours: uint8 [N, 3].
        title: What is shown.
        caption: How to read it.
        scale: Values at the two ends of the colour scale, if the colours are one.
        legend: Colours with their meaning, if they are few.
        chosen: The tile that the others are compared with.
        ends: What the two ends of the colour scale mean.
    """

    colours: RGB
    title: str
    caption: str
    scale: tuple[float, float] | None = None
    legend: Sequence[tuple[tuple[int, int, int], str]] = ()
    chosen: int | None = None
    ends: tuple[str, str] = ("different", "similar")


def draw_map(tiles: Tiles, ground: Ground, painted: Painted) -> Image.Image:
    """The slide with its tissue, and beside it the map; the map alone where there is no slide.

    Args:
        tiles: The tiles in level-0 pixels.
        ground: The picture under the map.
        painted: The colours of the tiles.
    """
    coloured = paint(ground, tiles, painted.colours)
    if painted.chosen is not None:
        left, top, right, bottom = ground.boxes(tiles)[painted.chosen].tolist()
        coloured = mark(coloured, (left + right) // 2, (top + bottom) // 2)
    facts = (painted.title, painted.caption, painted.scale, painted.legend, painted.ends)
    shown = [Panel(coloured, *facts)]
    notes = (*ground.notes, *tiles.notes)
    if ground.slide is not None:
        shown.insert(0, Panel(_slide_picture(ground), "The slide", _about(tiles, ground)))
    else:
        notes = (_about(tiles, ground), *notes)
    return side_by_side(shown, tiles.slide, notes=notes)


def paint(ground: Ground, tiles: Tiles, colours: RGB) -> RGB:
    """The picture of a slide with its tiles coloured and the rest faded.

    Args:
        ground: The picture.
        tiles: The tiles in level-0 pixels.
        colours: uint8 [N, 3].

    Returns:
        uint8 [h, w, 3], of the picture's size.
    """
    tile_of = np.full(ground.image.shape[:2], -1, np.int64)
    for number, (left, top, right, bottom) in enumerate(ground.boxes(tiles).tolist()):
        tile_of[top:bottom, left:right] = number
    covered = tile_of >= 0
    picture = (ground.image.astype(np.uint16) // 2 + 127).astype(np.uint8)
    if len(colours):
        picture[covered] = shaded(colours[tile_of], ground.image)[covered]
    return picture


def pca_map(tiles: Tiles) -> Painted:
    """The first three principal components of the features as red, green and blue."""
    found = components.find_components([tiles.rows], 3)
    share = 100 * float(found.shares.sum())
    return Painted(
        component_colours(found.scores(tiles.rows)),
        "Features as colours",
        f"Tiles of one colour have similar features (3 principal components, {share:.0f} % of"
        " their variance)",
    )


def cluster_map(tiles: Tiles, count: int) -> Painted:
    """The features in clusters (k-means), the largest first.

    Args:
        tiles: The tiles.
        count: How many clusters, from 2 to 9.

    Raises:
        ConfigError: More colours would be needed than people tell apart.
    """
    if not 2 <= count <= len(GROUPS):
        raise ConfigError(f"{count} clusters: from 2 to {len(GROUPS)}, one colour each")
    found = components.find_components([tiles.rows], PARTS)
    groups = components.clusters(found.scores(tiles.rows), count)
    sizes = np.bincount(groups).tolist()
    legend = [
        (_colour(number), f"{number + 1}: {size:,} tiles, {100 * size / len(groups):.0f} %")
        for number, size in enumerate(sizes)
    ]
    return Painted(
        GROUPS[groups],
        f"{len(sizes)} clusters of tiles",
        "Tiles of one colour have similar features (k-means)",
        legend=legend,
    )


def similarity_map(tiles: Tiles, chosen: int) -> Painted:
    """The similarity of every tile to one of them.

    Args:
        tiles: The tiles.
        chosen: The number of that tile.
    """
    centred = components.find_components([tiles.rows], 1).centred(tiles.rows)
    cosine = components.similarity(centred, chosen)
    ends = scale_ends(cosine)
    x, y = (round(v) for v in tiles.corners[chosen].tolist())
    return Painted(
        in_scale(cosine, ends),
        f"Similarity to the tile at {x},{y} {tiles.unit}",
        "Yellow: similar features (cosine about the mean of all tiles)",
        scale=ends,
        chosen=chosen,
    )


def values_map(values: Map, title: str) -> Painted:
    """A heat map of one number a tile, such as a score.

    Args:
        values: float32 [N], finite.
        title: What they are.
    """
    scale = scale_ends(values)
    return Painted(in_scale(values, scale), title, "", scale=scale, ends=("low", "high"))


def scale_ends(values: Map) -> tuple[float, float]:
    """The values at the ends of a colour scale: their 2nd and 98th percentile."""
    low, high = np.percentile(values, [2, 98])
    return float(low), float(high)


def _slide_picture(ground: Ground) -> RGB:
    """The picture with the tissue outlined and a scale bar."""
    image, outline = ground.image, ground.outline()
    if outline is not None:
        edge = dilated(outline, 1) & dilated(~outline, 1)
        image = np.where(edge[..., None], np.array(_OUTLINE, np.uint8), image)
    return image if ground.mpp is None else with_scale_bar(image, ground.mpp * ground.scale[0])


def _about(tiles: Tiles, ground: Ground) -> str:
    """The tiles in one line."""
    size = f"{tiles.side:.0f} px" if ground.mpp is None else f"{tiles.side * ground.mpp:.0f} um"
    outlined = "" if ground.outline() is None else "; tissue outlined in green"
    encoder = tiles.attributes.get("encoder") or tiles.attributes.get("extractor")
    by = f" in the features of {encoder}" if encoder else ""
    return f"{len(tiles.rows):,} tiles of {size}{by}{outlined}"


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = GROUPS[number].tolist()
    return red, green, blue
