"""TIFFs that OpenSlide refuses, through tifffile: in strips, with levels in SubIFDs, by OME.

JPEG tiles are decoded by Pillow, with the colours that the JPEG data hold: Bio-Formats writes
YCbCr under a header that says RGB. Other compressions are left to tifffile.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathencoder.arrays import over_white
from pathencoder.errors import MissingExtra, SlideError
from pathencoder.formats import jpeg
from pathencoder.formats.image_scale import evidence_of
from pathencoder.formats.jpeg_colours import jpeg_colours
from pathencoder.formats.tiff_tags import is_reduced_copy, read_pages
from pathencoder.mpp import Mpp, decide
from pathencoder.slides import checks
from pathencoder.slides.levels import RGB, Size, padded, true_downsample
from pathencoder.slides.reader import Slide

_JPEG, _GREY_ZERO, _GREY, _RGB, _YCBCR = 7, 0, 1, 2, 6  # values of the tags of TIFF 6.0
_ALPHA = (1, 2)
_CACHE_BYTES = 128 << 20  # of decoded tiles or strips
_LARGEST_PIECE = 512 << 20  # decoded bytes of one tile or strip
_STRIPS = "Rewrite it with tiles: vips tiffsave IN.tif OUT.tif --tile --pyramid --compression jpeg"


def open_file(path: Path) -> Slide:
    """Open a TIFF; see `pathencoder.slides.reader.open_slide`.

    Raises:
        SlideError: It is not a TIFF, damaged, or holds other pixels than 8-bit RGB or grey.
        MissingExtra: tifffile is not installed, or what it needs for the compression.
    """
    if path.is_dir() or not (pages := read_pages(path)):
        raise SlideError(f"{path}: not a TIFF")
    wrong = checks.damaged_tiles(path) or checks.unreadable(path, generic=True)
    if not wrong and pages[0].bits != 8:
        wrong = f"{pages[0].bits} bits a sample: 8 are read. Scale it to 8 bits first"
    if wrong:
        raise SlideError(f"{path}: {wrong}")
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtra.of("wsi", "Reading this TIFF with tifffile") from error
    try:
        slide = TiffReader(path, tifffile)
    except (SlideError, MissingExtra):
        raise
    except Exception as error:  # tifffile raises many kinds of errors on damaged files
        raise SlideError(f"{path}: tifffile cannot open it ({error})") from error
    return slide


class TiffReader:
    """A TIFF through tifffile, piece by piece (a tile or a strip); decoded pieces are kept.

    Args:
        path: The file.
        tifffile: The module.

    Raises:
        SlideError: Its colours or its compression are not supported.
        MissingExtra: The compression needs another package.
    """

    def __init__(self, path: Path, tifffile: Any) -> None:
        self.path = path
        self._file = tifffile.TiffFile(path)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], RGB] = OrderedDict()
        try:
            self._levels = _levels(self._file.pages[0], self._file.pages)
            if wrong := _unsupported(self._levels):
                raise SlideError(f"{path}: {wrong}")
            self._decode_one()
        except BaseException:
            self._file.close()
            raise
        self.size = self._levels[0].size
        self.downsamples = tuple(
            true_downsample(self.size, level.size, self.size[0] / level.size[0])
            for level in self._levels
        )
        self.bounds = (0, 0, *self.size)
        self.vendor = "ome-tiff" if self._file.is_ome else "tiff"
        self.reader = f"tifffile {tifffile.__version__}"
        grey = self._levels[0].page.photometric in (_GREY_ZERO, _GREY)
        self.notes: tuple[str, ...] = (checks.GREY_NOTE,) if grey else ()
        self.notes += checks.other_images(path)

    def mpp(self, given: float | None = None) -> Mpp:
        """Micrometres per level-0 pixel; see `Slide.mpp`."""
        return decide(evidence_of(self.path), name=str(self.path), given=given)

    def read(self, x: int, y: int, level: int, width: int, height: int) -> RGB:
        """Read a region, uint8 [height, width, 3]; see `Slide.read`."""
        factor, here = self.downsamples[level], self._levels[level]

        def inside(left: int, top: int, width: int, height: int) -> RGB:
            region = np.empty((height, width, 3), np.uint8)
            for row in range(top // here.piece[1], -(-(top + height) // here.piece[1])):
                for column in range(left // here.piece[0], -(-(left + width) // here.piece[0])):
                    _paste(region, left, top, self._piece(level, column, row), here, column, row)
            return region

        try:
            left, top = round(x / factor), round(y / factor)
            return padded(inside, here.size, left, top, (width, height))
        except MissingExtra:
            raise
        except Exception as error:
            raise SlideError(
                f"{self.path}: region at ({x}, {y}), level {level}, cannot be read: {error}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._kept.clear()

    def _piece(self, level: int, column: int, row: int) -> RGB:
        here = self._levels[level]
        key = (level, row * here.across + column)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        pixels = self._decoded(here, key[1])
        with self._lock:
            self._kept[key] = pixels
            while len(self._kept) > 1 and sum(p.nbytes for p in self._kept.values()) > _CACHE_BYTES:
                self._kept.popitem(last=False)
        return pixels

    def _decoded(self, level: _Level, index: int) -> RGB:
        page, planes = level.page, []
        for plane in range(level.planes):
            place = plane * level.across * level.down + index
            count = page.databytecounts[place]
            if not count:  # not scanned, which OpenSlide shows as transparent
                return np.full((level.piece[1], level.piece[0], 3), 255, np.uint8)
            with self._lock:
                self._file.filehandle.seek(page.dataoffsets[place])
                data = self._file.filehandle.read(count)
            if len(data) < count:
                raise SlideError("the file ends before it: it was cut off")
            planes.append(
                _decode_jpeg(page, data)
                if page.compression == _JPEG
                else _decode(page, data, place)
            )
        values = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        return _to_rgb(values, page)

    def _decode_one(self) -> None:
        """Refuse a compression that is not supported; damage of a piece is reported when read."""
        try:
            self._decoded(self._levels[0], 0)
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise MissingExtra.of("tiff", "A TIFF of this compression") from error
            if "COMPRESSION" in str(error):
                raise SlideError(f"{self.path}: {error}") from error
        except Exception:
            return


@dataclass(frozen=True)
class _Level:
    """A page, its size, the size of its pieces, and their number across, down and in planes."""

    page: Any
    size: Size
    piece: Size
    across: int
    down: int
    planes: int


def _levels(first: Any, pages: Sequence[Any]) -> list[_Level]:
    """The first page and its smaller copies: in its SubIFDs, and among the pages that follow."""
    full = (first.imagewidth, first.imagelength)
    others = [*(first.pages or ()), *(pages[i] for i in range(1, len(pages)))]
    found = [first]
    for page in others:
        size = (page.imagewidth, page.imagelength)
        same_kind = (page.is_tiled, page.photometric, page.samplesperpixel, page.bitspersample) == (
            first.is_tiled,
            first.photometric,
            first.samplesperpixel,
            first.bitspersample,
        )
        if same_kind and is_reduced_copy(full, size):
            found.append(page)
    found.sort(key=lambda page: -page.imagewidth)
    return [_level(page) for page in found]


def _level(page: Any) -> _Level:
    size = (page.imagewidth, page.imagelength)
    piece = (
        (page.tilewidth, page.tilelength)
        if page.is_tiled
        else (size[0], min(page.rowsperstrip or size[1], size[1]))
    )
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    return _Level(page, size, piece, -(-size[0] // piece[0]), -(-size[1] // piece[1]), planes)


def _unsupported(levels: Sequence[_Level]) -> str:
    """Why the pixels cannot be read, as a sentence; "" where they can."""
    page = levels[0].page
    samples, extra = page.samplesperpixel, tuple(page.extrasamples or ())
    colours = {_GREY_ZERO: 1, _GREY: 1, _RGB: 3, _YCBCR: 3}.get(page.photometric)
    if colours is None or (page.photometric == _YCBCR and page.compression != _JPEG):
        return f"colours of the kind {page.photometric!r}. Save it as RGB"
    if samples != colours and not (samples == colours + 1 and extra[:1] and extra[0] in _ALPHA):
        return f"{samples} channels, whose meaning it does not say. Save it as an RGB image"
    largest = max(level.piece[0] * level.piece[1] * samples for level in levels)
    if largest > _LARGEST_PIECE:
        return f"one strip or tile of it has {largest / 1e9:.1f} GB. {_STRIPS}"
    return ""


def _decode(page: Any, data: bytes, index: int) -> RGB:
    """One piece by tifffile: uint8 [h, w, samples]."""
    values = page.decode(data, index)[0]
    if values is None:
        raise SlideError("an empty tile or strip")
    return np.asarray(values[0], np.uint8)


def _decode_jpeg(page: Any, data: bytes) -> RGB:
    """One JPEG piece by Pillow: uint8 [h, w, samples]."""
    tables = page.jpegtables
    if tables:  # an abbreviated stream: the tables lie in a tag
        data = tables[:-2] + data[2:]
    if page.photometric in (_RGB, _YCBCR) and jpeg_colours(data) is None:
        transform = b"\x01" if page.photometric == _YCBCR else b"\x00"
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + transform
        data = data[:2] + adobe + data[2:]
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        jpeg.load(image)  # Pillow alone fills what is missing with grey
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _to_rgb(values: RGB, page: Any) -> RGB:
    if page.photometric == _GREY_ZERO:
        values = np.concatenate([255 - values[..., :1], values[..., 1:]], axis=2)
    if values.shape[2] < 3:
        values = np.concatenate([values[..., :1].repeat(3, axis=2), values[..., 1:]], axis=2)
    return over_white(values) if values.shape[2] == 4 else values


def _paste(
    region: RGB, left: int, top: int, piece: RGB, level: _Level, column: int, row: int
) -> None:
    """Copy the part of a piece that lies in a region at (left, top)."""
    x, y = column * level.piece[0], row * level.piece[1]
    x0, y0 = max(x, left), max(y, top)
    x1 = min(x + level.piece[0], left + region.shape[1])
    y1 = min(y + level.piece[1], top + region.shape[0])
    part = piece[y0 - y : y1 - y, x0 - x : x1 - x]
    if part.shape[:2] != (y1 - y0, x1 - x0):
        raise SlideError(f"a tile or strip has {piece.shape[1]} x {piece.shape[0]} px")
    region[y0 - top : y1 - top, x0 - left : x1 - left] = part
