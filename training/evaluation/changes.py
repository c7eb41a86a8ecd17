"""Changes of tiles that should not change what an encoder says: colour, position, file, scale."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures

from training.evaluation.robustness import UNSEEN, Image, hed

DRAWS = 3  # of every change of colour that no training uses


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        condition: Its name in results: "hue", "jpeg 50" ...
        draw: Number of the draw of random changes.
        make: From an image [H, W, 3] and a generator to the changed image.
    """

    condition: str
    draw: int
    make: Callable[[Image, np.random.Generator], Image]

    @property
    def key(self) -> str:
        """The name of its file in the cache."""
        return f"{self.condition.replace(' ', '-').replace('/', '-')}-{self.draw}"

    def of(self, tiles: list[Image]) -> list[Image]:
        """Changed tiles; one generator for all, so that each has its own draw."""
        rng = np.random.default_rng(self.draw)
        return [np.ascontiguousarray(self.make(tile, rng)) for tile in tiles]


def turned(quarters: int) -> Callable[[Image, np.random.Generator], Image]:
    """Rotation by quarter turns."""
    return lambda image, _: np.rot90(image, quarters)


def jpeg(quality: int) -> Callable[[Image, np.random.Generator], Image]:
    """Written as JPEG with 4:2:0 chroma of this quality, and read again."""

    def make(image: Image, _: np.random.Generator) -> Image:
        stream = io.BytesIO()
        Pictures.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=2)
        return np.asarray(Pictures.open(stream))

    return make


def magnified(factor: float) -> Callable[[Image, np.random.Generator], Image]:
    """The middle of the tile, enlarged to its size: a finer scale and a smaller field."""

    def make(image: Image, _: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        h, w = round(height / factor), round(width / factor)
        top, left = (height - h) // 2, (width - w) // 2
        middle = Pictures.fromarray(image[top : top + h, left : left + w])
        return np.asarray(middle.resize((width, height), Pictures.Resampling.BICUBIC))

    return make


def coarsened(factor: float) -> Callable[[Image, np.random.Generator], Image]:
    """Reduced and enlarged again: the same field as a coarser scan shows it."""

    def make(image: Image, _: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        small = Pictures.fromarray(image).resize(
            (max(1, round(width / factor)), max(1, round(height / factor))), Pictures.Resampling.BOX
        )
        return np.asarray(small.resize((width, height), Pictures.Resampling.BICUBIC))

    return make


CHANGES = (
    Change("hed", 0, hed),
    *(Change(name, draw, shift) for name, shift in UNSEEN.items() for draw in range(DRAWS)),
    *(Change("rotated", quarters - 1, turned(quarters)) for quarters in (1, 2, 3)),
    *(Change(f"jpeg {quality}", 0, jpeg(quality)) for quality in (70, 50, 30)),
    Change("magnified 1.4", 0, magnified(2**0.5)),
    Change("magnified 2", 0, magnified(2.0)),
    Change("resolution 1/2", 0, coarsened(2.0)),
)
CONDITIONS = tuple(dict.fromkeys(c.condition for c in CHANGES))
# in tables and plots
TITLES = {
    "hed": "stain (HED)",
    "mix": "channels mixed",
    "tone": "gamma, saturation",
    "rotated": "quarter turns",
    "jpeg 70": "JPEG quality 70",
    "jpeg 50": "JPEG quality 50",
    "jpeg 30": "JPEG quality 30",
    "magnified 1.4": "magnified 1.4 times",
    "magnified 2": "magnified twice",
    "resolution 1/2": "half the resolution",
}
