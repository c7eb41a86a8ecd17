"""`pathencoder encode --pictures`: the maps of a slide's features."""

from __future__ import annotations

from pathlib import Path

from pathencoder.cli.own_files import MAPS
from pathencoder.errors import ConfigError, SlideError
from pathencoder.files import make_folder, of_one_input
from pathencoder.slides.own_picture import may_replace, notes_on, save_picture


def draw_slide_maps(
    features: Path, slide: Path, folder: Path, *, anew: bool, overwrite: bool
) -> list[str]:
    """Draw a slide's features as colours and as clusters, where that is not done.

    Args:
        features: The feature file of the slide.
        slide: The slide.
        folder: Where the pictures lie, as KIND/NAME.jpg.
        anew: Replace pictures of an earlier run.
        overwrite: Replace any file.

    Returns:
        Notes where the maps could not be drawn, or files of another program were kept.

    Raises:
        Mismatch: The feature file is damaged.
        StoreError: A picture cannot be written.
    """
    from pathencoder.pictures import maps
    from pathencoder.pictures.draw import CLUSTERS
    from pathencoder.pictures.ground import ground_of
    from pathencoder.pictures.located import read_tiles

    files = {kind: folder / kind / f"{features.stem}.jpg" for kind in MAPS}
    missing = {kind: file for kind, file in files.items() if anew or not file.exists()}
    notes = [note for f in files.values() for note in notes_on(f, overwrite=overwrite)]
    missing = {kind: f for kind, f in missing.items() if may_replace(f, overwrite=overwrite)}
    if not missing:
        return notes
    try:
        with of_one_input():
            tiles = read_tiles(features)
        if not len(tiles.rows):
            return [*notes, *(f"no maps of its features: {note}" for note in tiles.notes)]
        tiles, ground = ground_of(tiles, slide)
    except (ConfigError, SlideError) as error:
        return [*notes, f"no maps of its features: {error}"]
    for kind, file in missing.items():
        painted = maps.pca_map(tiles) if kind == "pca" else maps.cluster_map(tiles, CLUSTERS)
        make_folder(file.parent)
        save_picture(maps.draw_map(tiles, ground, painted), file)
    return notes
