"""Large plain images as slides (JPEG, PNG, WebP, TIFF), read whole into memory by Pillow."""

from __future__ import annotations

from pathlib import Path

from pathencoder.errors import ImageError, SlideError
from pathencoder.formats.decode import read_large
from pathencoder.formats.image_scale import evidence_of
from pathencoder.mpp import Mpp, decide
from pathencoder.slides.levels import RGB, padded
from pathencoder.slides.reader import Slide

MOST_PIXELS = 1_000_000_000  # 3 GB in memory, twice that while decoding
_TILED = "Rewrite it with tiles: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"


def open_file(path: Path) -> Slide:
    """Read an image; see `pathencoder.slides.reader.open_slide`.

    Raises:
        SlideError: Not an image, damaged, of several pages, or too large for memory.
    """
    return ImageReader(path)


class ImageReader:
    """An image in memory.

    Args:
        path: The file.

    Raises:
        SlideError: Not an image, damaged, of several pages, or too large for memory.
    """

    def __init__(self, path: Path) -> None:
        import PIL

        self.path = path
        try:
            self._pixels: RGB = read_large(path, str(path), MOST_PIXELS)
        except ImageError as error:
            raise SlideError(str(error)) from error
        except MemoryError as error:
            raise SlideError(f"{path}: it does not fit in memory. {_TILED}") from error
        self.size = (self._pixels.shape[1], self._pixels.shape[0])
        self.downsamples: tuple[float, ...] = (1.0,)
        self.bounds = (0, 0, *self.size)
        self.vendor = "image"
        self.reader = f"Pillow {PIL.__version__}"
        self.notes: tuple[str, ...] = (
            f"a plain image, held in memory ({self._pixels.nbytes / 1e6:,.0f} MB)",
        )

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per pixel; see `Slide.mpp`."""
        return decide(evidence_of(self.path), name=str(self.path), given=given)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """Read a region, uint8 [height, width, 3]; see `Slide.read`."""
        return padded(
            lambda left, top, w, h: self._pixels[top : top + h, left : left + w],
            self.size,
            x,
            y,
            (width, height),
        )

    def close(self) -> None:
        """Free the memory."""
        self._pixels = self._pixels[:0]
