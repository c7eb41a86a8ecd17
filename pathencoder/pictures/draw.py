"""Draw the features of a slide from its feature file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pathencoder.errors import ConfigError
from pathencoder.pictures.ground import Ground, ground_of
from pathencoder.pictures.located import Tiles, read_tiles
from pathencoder.pictures.maps import (
    KINDS,
    Painted,
    cluster_map,
    draw_map,
    pca_map,
    similarity_map,
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
    slide: str | os.PathLike[str] | None = None,
) -> Image.Image:
    """Draw the features of a slide as a map over the slide.

    Args:
        features: The feature file of a slide, in any layout.
        kind: "pca": features as colours; "clusters"; "similarity": to one tile.
        tile: For "similarity": a point of the tile, x and y in level-0 pixels.
        clusters: For "clusters": how many, from 2 to 9.
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
    return drawn(Path(features), kind, tile, clusters, None if slide is None else Path(slide)).image


def drawn(
    features: Path,
    kind: str,
    tile: tuple[float, float] | None,
    clusters: int,
    slide: Path | None,
) -> Drawn:
    """`draw_features`, with what the picture was made of."""
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r}: one of {', '.join(KINDS)}")
    if kind == "similarity" and tile is None:
        raise ConfigError(
            "--kind similarity needs --tile X,Y (tile): the tile that others are compared with"
        )
    if kind != "similarity" and tile is not None:
        raise ConfigError(f"--tile (tile) is for --kind similarity, not for {kind}")
    tiles = read_tiles(features)
    if not len(tiles.rows):
        raise ConfigError(f"{features} holds no tiles: there is nothing to draw")
    tiles, ground = ground_of(tiles, slide)
    if tile is not None:
        painted = similarity_map(tiles, tiles.at(*tile))
    else:
        painted = cluster_map(tiles, clusters) if kind == "clusters" else pca_map(tiles)
    return Drawn(draw_map(tiles, ground, painted), tiles, ground, painted)
