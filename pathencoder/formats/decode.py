"""Decode one image file, its bytes, or a PIL image to uint8 RGB."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pathencoder import arrays, bit_depth
from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError
from pathencoder.formats import jpeg, tiff
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, SLIDE_SUFFIXES
from pathencoder.formats.tiff_tags import pages_in
from pathencoder.walk import NEITHER, is_special, no_such, printable

log = logging.getLogger(__name__)

_OF_SLIDES = SLIDE_SUFFIXES | FOREIGN_SUFFIXES
_ORIENTATION = 0x0112  # the EXIF tag
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_WITHOUT_TILES = ("WEBP", "AVIF")  # Pillow does not show whether these are decoded yet
_LARGE = {  # first bytes, and the name of Pillow's class
    b"\xff\xd8\xff": "Jpeg",
    b"\x89PNG": "Png",
    b"RIFF": "WebP",
    b"BM": "Bmp",
    b"II": "Tiff",
    b"MM": "Tiff",
}
_LAYERED = frozenset({"PSD", "XCF"})  # their other frames are layers of one picture


def read_file(source: Path | BinaryIO, where: str) -> Pixels:
    """Decode a file, or the bytes of one.

    Args:
        source: A path, or a stream at its start.
        where: What an error calls it.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageError: Not an image, damaged, or not supported.
    """
    if isinstance(source, Path) and source.suffix.lower() in _OF_SLIDES and source.exists():
        raise arrays.slide_error(where, printable(source.name))
    if isinstance(source, Path) and is_special(source):
        raise ImageError(f"{where}: {NEITHER}")
    try:
        with Image.open(source) as image:
            arrays.check_size(image.width, image.height, where)
            return _decode(image, where)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{where}: {error}; use it as a slide (`pathencoder encode --as slides`)"
        ) from error
    except FileNotFoundError as error:
        missing = "no such file" if not isinstance(source, Path) else no_such("file", source)
        raise ImageError(f"{where}: {missing}") from error
    except UnidentifiedImageError as error:
        return _read_unidentified(source, where, error)
    except Exception as error:  # Pillow's readers raise many kinds of errors on damaged files
        raise ImageError(f"{where}: cannot be read ({error})") from error


def read_large(path: Path, where: str, most: int) -> Pixels:
    """Decode a plain image of more pixels than `read_file` accepts.

    Args:
        path: The file.
        where: What an error calls it.
        most: The greatest number of pixels.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageError: Larger, not an image of a kind in `_LARGE`, damaged, or not supported.
    """
    try:
        with path.open("rb") as stream:
            front = stream.read(4)
            stream.seek(0)
            found = next((module for mark, module in _LARGE.items() if front.startswith(mark)), "")
            if not found:
                raise ImageError(f"{where}: not a JPEG, PNG, WebP, BMP or TIFF image")
            plugin = importlib.import_module(f"PIL.{found}ImagePlugin")
            # not Image.open, which refuses images of this size
            with getattr(plugin, f"{found}ImageFile")(stream, str(path)) as image:
                if image.width * image.height > most:
                    raise ImageError(
                        f"{where}: {image.width} x {image.height} px are more than fit in memory"
                        f" ({most // 10**6:,} megapixels). Rewrite it with tiles: vips tiffsave IN"
                        " OUT.tif --tile --pyramid --compression jpeg"
                    )
                return _decode(image, where)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # as above
        raise ImageError(f"{where}: cannot be read ({error})") from error


def from_pil(image: Image.Image, where: str) -> Pixels:
    """Convert a PIL image, decoded or not, to uint8 RGB [H, W, 3].

    Raises:
        ImageError: It is damaged or not supported.
    """
    arrays.check_size(image.width, image.height, where)
    opened = getattr(image, "tile", None) or image.format in _WITHOUT_TILES
    try:
        return _decode(image, where) if opened else _pixels(image, where)
    except ImageError:
        raise
    except Exception as error:  # as above: damage is found while decoding
        raise ImageError(f"{where}: cannot be decoded ({error})") from error


def _decode(image: Image.Image, where: str) -> Pixels:
    """The pixels of an opened image whose file is still open."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        _warn_of_truncation()
    if image.format == "TIFF":
        return _decode_tiff(image, where)
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        raise ImageError(
            f"{where}: CMYK without Adobe's marker, so that it is unknown whether 0 is ink or"
            " paper. Save it as RGB"
        )
    if image.format != "JPEG":
        _check_frames(image, where)
    if image.format in ("JPEG", "MPO"):
        jpeg.load(image)
    else:
        _load(image, where)
    return _pixels(image, where)


def _decode_tiff(image: Image.Image, where: str) -> Pixels:
    stream, tags = image.fp, image.tag_v2  # type: ignore[attr-defined]
    if image.tell() == 0:
        tiff.check_pages(
            stream, where, printable(Path(getattr(image, "filename", "") or "FILE").name)
        )
    tiff.check_colours(tags, where)
    reason = tiff.misread(tags)
    if reason:
        return tiff.read(stream, where, reason, image.tell())
    _load(image, where)
    if image.mode == "RGBA" and not tiff.says_alpha(tags) and np.asarray(image)[..., 3].min() < 255:
        raise ImageError(
            f"{where}: four channels, and the file does not say that the fourth is alpha. Save it"
            " as RGB"
        )
    return _pixels(image, where, tiff.stated_range(tags))


def _load(image: Image.Image, where: str) -> None:
    """Decode; where Pillow drops the lower 8 of 16 bits, check the range by the upper ones."""
    stored = _stored_as(image)
    image.load()
    if ";16" in stored and image.mode in ("RGB", "RGBA", "LA"):
        colours = np.asarray(image)[..., : len(image.mode.rstrip("A"))]
        bit_depth.check_high_bytes(int(colours.max()), where)


def _check_frames(image: Image.Image, where: str) -> None:
    """Raise ImageError for several images in one file; smaller previews do not count."""
    count, size = getattr(image, "n_frames", 1), image.size
    if count == 1 or image.tell() or image.format in _LAYERED:
        return
    if image.format == "MPO":
        count = sum(_size_of_frame(image, i) >= size for i in range(count))
        image.seek(0)
    if count > 1:
        raise ImageError(
            f"{where}: it holds {count} images: save the one you need as a separate file, or split"
            " them"
        )


def _size_of_frame(image: Image.Image, index: int) -> tuple[int, int]:
    image.seek(index)
    return image.size


def _stored_as(image: Image.Image) -> str:
    """How the pixels are stored, in Pillow's notation ("RGB;16B")."""
    if not image.tile:  # type: ignore[attr-defined]
        return ""
    decoder, _, _, args = image.tile[0]  # type: ignore[attr-defined]
    if decoder == "ppm" and args[-1] == bit_depth.OF_16_BITS.top:
        return f"{args[0]};16"
    return str(args[0] if isinstance(args, tuple) and args else args)


def _read_unidentified(source: Path | BinaryIO, where: str, error: Exception) -> Pixels:
    """Read a file that Pillow does not recognise: an unusual TIFF, or not an image."""
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            if pages_in(stream):
                tiff.check_pages(
                    stream, where, printable(source.name) if isinstance(source, Path) else "FILE"
                )
                return tiff.read(stream, where, "Pillow does not know it")
    except ImageError:
        raise
    except Exception as damage:  # tifffile raises as many kinds of errors as Pillow
        raise ImageError(f"{where}: cannot be read ({damage})") from damage
    raise ImageError(f"{where}: not an image that can be read, despite its name") from error


@functools.cache
def _warn_of_truncation() -> None:
    log.warning(
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on: truncated images are accepted, with the missing"
        " pixels grey or black"
    )


def _pixels(
    image: Image.Image, where: str, limits: bit_depth.Range = bit_depth.OF_16_BITS
) -> Pixels:
    """Convert decoded pixels to upright RGB; `limits` is the range of integers above 8 bits."""
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "F":
        values = np.asarray(image) / np.float32(limits.top if limits.stated else 1)
        return arrays.to_rgb(arrays.from_float(values, where, arrays.finite_bounds(values)), where)
    if image.mode.startswith("I"):
        whole: Any = np.asarray(image)
        return arrays.to_rgb(
            arrays.from_whole(whole, where, (whole.min(), whole.max()), limits), where
        )
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return arrays.to_rgb(np.asarray(image.convert("RGBA")), where)
    return np.asarray(image.convert("RGB"))
