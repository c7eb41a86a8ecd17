"""Any input form -> uint8 RGB arrays, lazily. What is refused, and why.

Taken: PIL images; arrays and tensors (see arrays.py); paths; folders; lists, iterators and generators of any of these. Alpha is laid over
white, grey becomes RGB, CMYK and palettes are converted, 16-bit is divided by 257, EXIF orientation is applied, of several frames the
first counts.
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pathencoder import arrays
from pathencoder.arrays import Array, Pixels
from pathencoder.errors import ImageError

Key: TypeAlias = str | int
ImageSource: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | Item"
Images: TypeAlias = "ImageSource | Iterable[Images]"

SUFFIXES = frozenset({".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_ORIENTATION = 0x0112  # the EXIF tag
_Named: TypeAlias = tuple[str, Callable[[], Pixels]]


@dataclass(frozen=True)
class Item:
    """One image that is not decoded yet.

    key: path relative to the folder that was given, else its index among all images.
    where: what an error calls it. load: decodes it; raises ImageError; may run in any thread.
    """

    key: Key
    where: str
    load: Callable[[], Pixels]


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Every image file below a folder, in natural order (tile2 before tile10); hidden ones are left out.

    Raises ImageError if there is no such folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ImageError(f"no such folder: {root}")
    relative = [p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    return [root / p for p in sorted(relative, key=_natural) if not any(part.startswith(".") for part in p.parts)]


def iterate(images: Images) -> Iterator[Item]:
    """The images one by one, in order, nothing decoded yet; an iterator is advanced only as far as this one is.

    Raises ImageError for a path that is not there, a folder without images, or something that holds no images at all.
    """
    return survey(images)[0]


def survey(images: Images) -> tuple[Iterator[Item], int | None]:
    """`iterate`, and how many images there are where that can be told without advancing an iterator."""
    if isinstance(images, str | os.PathLike):
        path = Path(images).expanduser()
        if path.is_dir():
            found = _folder(path)
            return (_in_folder(path, p) for p in found), len(found)
        if not path.exists():
            raise ImageError(f"no such file or folder: {path}")
    elif not isinstance(images, Image.Image | Iterable) or isinstance(images, Mapping | bytes):
        raise ImageError(f"images: {_describe(images)} is not an image, a path, or a list of those")
    return (Item(index, where, load) for index, (where, load) in enumerate(_flatten(images, "images"))), _count(images)


def _in_folder(folder: Path, path: Path) -> Item:
    return Item(path.relative_to(folder).as_posix(), str(path), functools.partial(_read_file, path, str(path)))


def open_image(source: ImageSource, where: str = "image") -> Pixels:
    """uint8 RGB [H, W, 3] of one image in any form. Raises ImageError, which calls it `where`."""
    if arrays.is_array(source) or isinstance(source, str | os.PathLike | Image.Image):
        found = list(_flatten(source, where))
        if len(found) == 1:
            return found[0][1]()
    raise ImageError(f"{where}: one image is wanted here, found {_describe(source)}")


def _flatten(source: Any, where: str) -> Iterator[_Named]:
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        for p in _folder(path) if _is_folder(path) else [path]:
            label = str(p) if where in ("images", str(p)) else f"{where} {p}"
            yield label, functools.partial(_read_file, p, label)
    elif isinstance(source, Image.Image):
        yield where, functools.partial(_from_pil, source, where)
    elif isinstance(source, Item):
        yield source.where, source.load
    elif arrays.is_array(source):
        yield from arrays.split(source, where)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        for i, inner in enumerate(source):
            yield from _flatten(inner, f"{where}[{i}]")
    else:
        yield where, functools.partial(_refuse, source, where)


def _count(images: Any) -> int | None:
    if arrays.is_array(images):
        return int(images.shape[0]) if images.ndim == 4 else 1
    if isinstance(images, Image.Image):
        return 1
    if isinstance(images, str | os.PathLike):
        path = Path(images).expanduser()
        return len(list_images(path)) if _is_folder(path) else 1
    if isinstance(images, list | tuple):
        counts = [_count(i) for i in images]
        return None if None in counts else sum(c for c in counts if c is not None)
    return len(images) if isinstance(images, Sized) else 1 if not isinstance(images, Iterable) else None


def _is_folder(path: Path) -> bool:
    """Inside a list. Names of images are believed: on a network disk a question a file costs more than reading it."""
    return path.suffix.lower() not in SUFFIXES and path.is_dir()


def _folder(path: Path) -> list[Path]:
    found = list_images(path)
    if not found:
        raise ImageError(f"no images in {path} (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def decode_image(data: bytes, where: str = "image") -> Pixels:
    """Decode the bytes of an image file, by the same rules as a file on disk.

    Args:
        data: The whole file, for example a member of a tar shard.
        where: What an error calls it.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageError: It is not an image, damaged, or not one that `encode` takes.
    """
    return _read_file(io.BytesIO(data), where)


def _read_file(source: Path | BinaryIO, where: str) -> Pixels:
    try:
        with Image.open(source) as image:
            return _from_pil(image, where)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{where}: {error}; use it as a slide (`pathencoder encode --as slides`)") from error
    except FileNotFoundError as error:
        raise ImageError(f"{where}: no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{where}: not an image, whatever its name says") from error
    except Exception as error:  # Pillow's readers raise most of Python's errors on damaged files
        raise ImageError(f"{where}: cannot be read ({error})") from error


def _from_pil(image: Image.Image, where: str) -> Pixels:
    arrays.check_size(image.width, image.height, where)
    try:
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return _pixels(image, where)
    except ImageError:
        raise
    except Exception as error:  # as above: damage shows while decoding
        raise ImageError(f"{where}: cannot be decoded ({error})") from error


def _pixels(image: Image.Image, where: str) -> Pixels:
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "F":
        values = np.asarray(image)
        return arrays.to_rgb(arrays.from_float(values, where, arrays.finite_bounds(values)))
    if image.mode.startswith("I"):
        return arrays.to_rgb(_from_integers(np.asarray(image), where))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return arrays.to_rgb(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _from_integers(values: Any, where: str) -> Pixels:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{where}: whole numbers from {low} to {high}; of those 8 bits (0..255) and 16 bits (0..65535) are taken")
    return arrays.from_16_bits(values)


def _refuse(source: object, where: str) -> Pixels:
    raise ImageError(f"{where}: {_describe(source)} is not an image, a path, or a list of those")


def _describe(source: object) -> str:
    return f"{type(source).__name__} {str(source)[:40]!r}" if isinstance(source, str | int | float) else f"a {type(source).__name__}"


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    parts: list[list[str | int]] = [[int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", part.casefold())] for part in path.parts]
    return parts, path.as_posix()  # names that differ in case only still have one order
