"""Draw the features of a slide from its feature file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.features.given import is_number, path_given
from pathencoder.pictures.colours import Map
from pathencoder.pictures.ground import Ground, ground_of
from pathencoder.pictures.located import Tiles, read_tiles
from pathencoder.pictures.maps import (
    KINDS,
    Painted,
    cluster_map,
    draw_map,
    pca_map,
    similarity_map,
    values_map,
)

CLUSTERS = 6


@dataclass(frozen=True)
class Drawn:
    """A picture of a slide's features, and what it was made of."""

    image: Image.Image
    tiles: Tiles
    ground: Ground
    painted: Painted


def draw_features(
    features: str | os.PathLike[str],
    kind: str = "pca",
    *,
    tile: tuple[float, float] | None = None,
    clusters: int = CLUSTERS,
    values: ArrayLike | None = None,
    title: str = "Values of the tiles",
    slide: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Draw the features of a slide as a map over the slide.

        coords, weights = head.attention("features/slide.h5")
        picture = pathencoder.draw_features("features/slide.h5", "values", values=weights)

    Args:
        features: The feature file of a slide, in any layout.
        kind: "pca": features as colours; "clusters"; "similarity": to one tile; "values": a heat
            map of one number a tile, such as the score of a classifier.
        tile: For "similarity": a point of the tile, x and y in level-0 pixels.
        clusters: For "clusters": how many, from 2 to 9.
        values: For "values": one finite number for each row of the file, in its order.
        title: For "values": what they are.
        slide: The slide. None: the one that the features were made from, where it still exists;
            the map is drawn on white where it does not.

    Returns:
        An RGB picture.

    Raises:
        ConfigError: A setting is not valid, the file holds no tiles of a slide, or the slide is
            another one.
        StoreError: The file cannot be read.
        SlideError: The given slide cannot be read.
    """
    file = path_given(features, "features")
    where = None if slide is None else path_given(slide, "slide")
    return drawn(file, kind, tile, clusters, where, values=values, title=title).image


def drawn(
    features: Path,
    kind: str,
    tile: tuple[float, float] | None,
    clusters: int,
    slide: Path | None,
    *,
    values: ArrayLike | None = None,
    title: str = "",
    notes: Sequence[str] = (),
) -> Drawn:
    """`draw_features`, with what the picture was made of; `notes` are written below it."""
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r}: one of {', '.join(KINDS)}")
    if kind == "similarity" and tile is None:
        raise ConfigError(
            "--kind similarity needs --tile X,Y (tile): the tile that others are compared with"
        )
    if kind != "similarity" and tile is not None:
        raise ConfigError(f"--tile (tile) is for --kind similarity, not for {kind}")
    if tile is not None:
        _check_point(tile)
    if isinstance(clusters, bool) or not isinstance(clusters, Integral):
        raise ConfigError(f"clusters={clusters!r}: a whole number from 2 to 9")
    if (kind == "values") != (values is not None):
        raise ConfigError("kind='values' and values= belong together: one number for each row")
    tiles = read_tiles(features)
    if not len(tiles.rows):
        raise ConfigError(f"{features} holds no tiles: there is nothing to draw")
    numbers = None if values is None else _of_tiles(values, tiles)
    tiles = dataclasses.replace(tiles, notes=(*notes, *tiles.notes))
    tiles, ground = ground_of(tiles, slide)
    if numbers is not None:
        painted = values_map(numbers, title)
    elif tile is not None:
        painted = similarity_map(tiles, tiles.at(*tile))
    else:
        painted = cluster_map(tiles, clusters) if kind == "clusters" else pca_map(tiles)
    return Drawn(draw_map(tiles, ground, painted), tiles, ground, painted)


def _check_point(tile: object) -> None:
    """Raise ConfigError where a tile is not named by two numbers."""
    values = list(tile) if isinstance(tile, Iterable) and not isinstance(tile, str) else []
    if len(values) != 2 or not all(map(is_number, values)):
        raise ConfigError(f"tile={tile!r}: two numbers, x and y in level-0 pixels of the slide")


def _of_tiles(values: ArrayLike, tiles: Tiles) -> Map:
    """The values of the tiles that are drawn. Raises ConfigError where they are not one a row."""
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"values: numbers are needed ({error})") from error
    kept = np.ones(len(tiles.rows), np.bool_) if tiles.finite is None else tiles.finite
    if found.shape != kept.shape:
        raise ConfigError(
            f"values has the shape {found.shape}: {tiles.file} needs one number for each of its"
            f" {len(kept):,} rows"
        )
    found = found[kept]
    if not np.isfinite(found).all():
        raise ConfigError("values holds numbers that are not finite: give each row a number")
    return found
