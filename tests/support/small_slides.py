"""Slides for tests: one in memory with the reader's protocol, and small pyramidal TIFFs."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from pathencoder.errors import SlideError
from pathencoder.slides.mpp import find_mpp


@dataclasses.dataclass
class MemorySlide:
    """A slide made of an array.

    Attributes:
        broken: Level-0 boxes (x0, y0, x1, y1) that cannot be read, at `broken_levels`.
    """

    pixels: np.ndarray
    downsamples: tuple[float, ...] = (1.0,)
    path: Path = Path("memory.svs")
    properties: dict = dataclasses.field(
        default_factory=lambda: {"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.5"}
    )
    broken: tuple = ()
    broken_levels: tuple[int, ...] = (0, 1, 2)
    vendor: str = "memory"
    reader: str = "memory"
    notes: tuple[str, ...] = ()
    reads: int = 0

    def __post_init__(self):
        self.size = (self.pixels.shape[1], self.pixels.shape[0])
        self.bounds = (0, 0, *self.size)
        image = Image.fromarray(self.pixels)
        self.levels = [
            np.asarray(
                image.resize(
                    (round(image.width / d), round(image.height / d)), Image.Resampling.BOX
                )
            )
            for d in self.downsamples
        ]

    def mpp(self, given=None):
        return find_mpp(self.properties, name=str(self.path), given=given)

    def read(self, x, y, level, width, height):
        self.reads += 1
        down = self.downsamples[level]
        for x0, y0, x1, y1 in self.broken:
            if (
                level in self.broken_levels
                and x < x1
                and y < y1
                and x + width * down > x0
                and y + height * down > y0
            ):
                raise SlideError(
                    f"{self.path}: region at ({x}, {y}), level {level}, cannot be read: made so"
                )
        out = np.full((height, width, 3), 255, np.uint8)
        source, left, top = self.levels[level], round(x / down), round(y / down)
        here = source[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
        out[
            max(-top, 0) : max(-top, 0) + here.shape[0],
            max(-left, 0) : max(-left, 0) + here.shape[1],
        ] = here
        return out

    def close(self):
        pass


def section(
    width=1024,
    height=768,
    tissue=((128, 128, 640, 512),),
    colour=(190, 120, 170),
    glass=243,
    seed=0,
):
    """Textured rectangles (x0, y0, x1, y1) of tissue on glass, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), glass, np.float32) + random.normal(
        0, 0.7, (height, width, 1)
    )
    for x0, y0, x1, y1 in tissue:
        shape = (-(-(y1 - y0) // 8), -(-(x1 - x0) // 8), 1)
        texture = random.normal(0, 14, shape).repeat(8, 0).repeat(8, 1)[: y1 - y0, : x1 - x0]
        here = image[y0:y1, x0:x1]
        here[:] = np.array(colour, np.float32) + texture[: here.shape[0], : here.shape[1]]
    return np.clip(image, 0, 255).astype(np.uint8)


def write_tiff(path, pixels, *, mpp=0.5, levels=(1, 4), tile=256):
    """A tiled pyramidal TIFF that OpenSlide reads; mpp None leaves the resolution tags out."""
    import tifffile

    image = Image.fromarray(pixels)
    resolution = (
        {}
        if mpp is None
        else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    )
    with tifffile.TiffWriter(path) as file:
        for level in levels:
            data = np.asarray(
                image.resize((image.width // level, image.height // level), Image.Resampling.BOX)
            )
            scaled = (
                {}
                if mpp is None
                else {**resolution, "resolution": (1e4 / mpp / level, 1e4 / mpp / level)}
            )
            kind = {"subfiletype": 1} if level > 1 else {}
            file.write(
                data,
                tile=(tile, tile),
                photometric="rgb",
                compression="zlib",
                metadata=None,
                **scaled,
                **kind,
            )
    return path
