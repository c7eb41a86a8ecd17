"""What the integrations share."""

from __future__ import annotations

import numpy as np

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, MissingExtra, UnknownEncoder
from pathencoder.images import ImageSource, open_image
from pathencoder.pretrained import catalogue
from pathencoder.spec import EncoderSpec
from pathencoder.transforms import Transform


def missing(package: str, integration: str) -> MissingExtra:
    """The error for a tool that is not installed.

    Args:
        package: Its name on PyPI.
        integration: The module that needs it, without the package's name.
    """
    return MissingExtra(
        f"pathencoder.integrations.{integration} needs {package}: pip install {package}"
    )


def reading_mpp(spec: EncoderSpec, target_mpp: float | None) -> float:
    """Micrometres per pixel at which tiles are read for an encoder.

    Args:
        spec: The encoder's description.
        target_mpp: The user's choice; None: the encoder's own.

    Raises:
        ConfigError: Neither says it.
    """
    found = target_mpp or spec.reading_mpp
    if found is None:
        raise ConfigError(f"{spec.name} does not say at what scale it was trained: give target_mpp")
    return found


def named(name: str) -> EncoderSpec:
    """The description of an encoder of the catalogue.

    Args:
        name: As `list_encoders` has it, in any case.

    Raises:
        UnknownEncoder: Nothing has that name.
    """
    own = catalogue.find(name)
    if own is None:
        raise UnknownEncoder(
            f"no encoder named {name!r}{catalogue.nearest(name)}. `pathencoder list` shows all"
        )
    return catalogue.catalogue()[own]


class Resize:
    """An image in any form to uint8 [S, S, 3], as `Transform.resize` does. Picklable.

    The array is writable, as torch's collation wants it.
    """

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def __call__(self, image: ImageSource) -> Pixels:
        """Resize one image."""
        return np.require(self.transform.resize(open_image(image)), requirements="W")
