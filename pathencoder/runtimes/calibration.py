"""The tiles of a user that int8 is calibrated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, ImageError
from pathencoder.images import list_images, open_image
from pathencoder.runtimes.quantise import FEWEST
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform


def tiles_of(
    folder: Path, spec: EncoderSpec, most: int, say: Callable[[str], None] = lambda _: None
) -> list[Pixels]:
    """Tiles of a folder, resized as `encode` does it, taken evenly from its list of images.

    Args:
        folder: With images, searched recursively.
        spec: Of the encoder.
        most: How many tiles are read.
        say: Called with a sentence on tiles that could not be read.

    Returns:
        uint8 [S, S, 3] each.

    Raises:
        ConfigError: There are too few.
    """
    found = list_images(folder)
    count = min(most, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    transform, tiles, errors = Transform(spec), list[Pixels](), list[str]()
    for file in chosen:
        try:
            tiles.append(transform.resize(open_image(Path(file), str(file)), None))
        except ImageError as error:
            errors.append(str(error))
    if errors:
        say(f"{len(errors)} tiles could not be read and are left out, the first: {errors[0]}")
    if len(tiles) < FEWEST:
        raise ConfigError(
            f"{folder} has {len(tiles)} tiles that can be read, and int8 needs {FEWEST} at least,"
            " better 300 of every kind of tissue and stain that it will be used on"
        )
    return tiles
