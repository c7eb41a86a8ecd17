"""`pathencoder encode --pictures`: the maps of a slide's features."""

from __future__ import annotations

from pathlib import Path

from pathencoder.cli.own_files import MAPS
from pathencoder.errors import ConfigError, SlideError
from pathencoder.files import make_folder, whole_file


def draw_slide_maps(features: Path, slide: Path, folder: Path, *, anew: bool) -> list[str]:
    """Draw a slide's features as colours and as clusters, where that is not done.

    Args:
        features: The feature file of the slide.
        slide: The slide.
        folder: Where the pictures lie, as KIND/NAME.jpg.
        anew: Replace pictures of an earlier run.

    Returns:
        Notes where the maps could not be drawn.

    Raises:
        StoreError: A picture cannot be written.
    """
    from pathencoder.pictures import maps
    from pathencoder.pictures.draw import CLUSTERS
    from pathencoder.pictures.ground import ground_of
    from pathencoder.pictures.located import read_tiles

    files = {kind: folder / kind / f"{features.stem}.jpg" for kind in MAPS}
    missing = {kind: file for kind, file in files.items() if anew or not file.exists()}
    if not missing:
        return []
    try:
        tiles = read_tiles(features)
        if not len(tiles.rows):
            return [f"no maps of its features: {note}" for note in tiles.notes]
        tiles, ground = ground_of(tiles, slide)
    except (ConfigError, SlideError) as error:
        return [f"no maps of its features: {error}"]
    for kind, file in missing.items():
        painted = maps.pca_map(tiles) if kind == "pca" else maps.cluster_map(tiles, CLUSTERS)
        make_folder(file.parent)
        with whole_file(file) as temporary:
            maps.draw_map(tiles, ground, painted).save(temporary, "JPEG", quality=85, optimize=True)
    return []
