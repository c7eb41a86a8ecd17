"""Convert images in any form to uint8 RGB arrays, lazily.

Accepted: PIL images; arrays and tensors (see arrays.py); paths; folders; lists, iterators and
generators of any of these. Alpha is composited over white, grey becomes RGB, CMYK and palettes are
converted, 16 bits are scaled by the range that the file states, EXIF orientation is applied. A file
holds one image: several pages or frames, and whole slides, are refused (formats/decode.py).
"""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from pathencoder import arrays
from pathencoder.arrays import Array, Pixels
from pathencoder.errors import ImageError
from pathencoder.formats import decode
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, SLIDE_SUFFIXES
from pathencoder.walk import expanded, no_such, printable, walk

log = logging.getLogger(__name__)

Key: TypeAlias = str | int
ImageSource: TypeAlias = "str | os.PathLike[str] | Image.Image | Array | Item"
Images: TypeAlias = "ImageSource | Iterable[Images]"

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# Suffixes of images that are not supported: a warning names those that a folder has.
_OTHERS = frozenset(
    {
        ".avif",
        ".dib",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jpe",
        ".jpf",
        ".jpx",
        ".jxl",
        ".pbm",
        ".pgm",
        ".pnm",
        ".psd",
        ".tga",
    }
)
_Named: TypeAlias = tuple[str, Callable[[], Pixels], Path | None]  # as the fields of an Item


@dataclass(frozen=True)
class Item:
    """One image that is not decoded yet.

    Attributes:
        key: Path relative to the given folder, else the index among all images.
        where: What an error calls it.
        load: Decodes it to uint8 RGB [H, W, 3] or raises ImageError; may run in any thread.
        path: The file that it is decoded from; None where it has none of its own.
    """

    key: Key
    where: str
    load: Callable[[], Pixels]
    path: Path | None = None


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder, in natural order (tile2 before tile10).

    Links to folders are followed and hidden files are left out. A warning names what cannot be
    listed (a loop of links, a folder without permission).

    Args:
        folder: The folder; "~" is expanded.

    Returns:
        Paths that begin with `folder`.

    Raises:
        ImageError: The folder does not exist.
    """
    root = expanded(folder)
    if not root.is_dir():
        raise ImageError(f"{no_such('folder', root)}: {printable(root)}")
    found = walk(root)
    if found.left_out:
        reasons = "; ".join(
            f"{printable(left.path.relative_to(root))}: {left.reason}" for left in found.left_out
        )
        log.warning("%s: left out: %s", printable(root), reasons)
    return _images_among(found.files)


def _images_among(files: list[Path]) -> list[Path]:
    return [path for path in files if path.suffix.lower() in SUFFIXES]


def _slides_among(files: list[Path]) -> list[str]:
    return [
        printable(path.name)
        for path in files
        if path.suffix.lower() in SLIDE_SUFFIXES | FOREIGN_SUFFIXES
    ]


def iterate(images: Images) -> Iterator[Item]:
    """Iterate over images in order, without decoding them.

    Iterators are advanced lazily.

    Args:
        images: In any form that the module's docstring lists.

    Returns:
        An iterator of items.

    Raises:
        ImageError: A path does not exist, a folder holds no images, or the type is not supported.
    """
    return survey(images)[0]


def survey(images: Images) -> tuple[Iterator[Item], int | None]:
    """As `iterate`, and count the images.

    Args:
        images: In any form that the module's docstring lists.

    Returns:
        An iterator of items, and their number; None where only an iterator knows it.

    Raises:
        ImageError: A path does not exist, a folder holds no images, or the type is not supported.
    """
    images = _unpacked(images)
    if isinstance(images, str | os.PathLike):
        path = expanded(images)
        if path.is_dir():
            found = _keyed(path, _folder(path))
            return (
                Item(key, printable(p), functools.partial(decode.read_file, p, printable(p)), p)
                for key, p in found.items()
            ), len(found)
        if not path.exists():
            raise ImageError(f"{no_such('file or folder', path)}: {printable(path)}")
    elif not isinstance(images, Image.Image | Iterable) or isinstance(images, Mapping | bytes):
        raise ImageError(f"images: {_describe(images)} is not an image, a path, or a list of those")
    items = (Item(index, *named) for index, named in enumerate(_flatten(images, "images")))
    return items, _count(images)


def _keyed(folder: Path, files: list[Path]) -> dict[str, Path]:
    """Files by their printable names below a folder.

    Raises ImageError where two names become the same.
    """
    found: dict[str, Path] = {}
    for path in files:
        key = printable(path.relative_to(folder).as_posix())
        if key in found:
            names = f"{os.fsencode(found[key])!r} and {os.fsencode(path)!r}"
            raise ImageError(
                f"two names would be the same key {key!r}: {names}. Rename one of them"
            )
        found[key] = path
    return found


def open_image(source: ImageSource, where: str = "image") -> Pixels:
    """Decode one image in any form.

    Args:
        source: The image.
        where: What an error calls it.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageError: It cannot be read, or is not exactly one image.
    """
    source = _unpacked(source)
    if arrays.is_array(source) or isinstance(source, str | os.PathLike | Image.Image | Item):
        found = list(_flatten(source, where))
        if len(found) == 1:
            return found[0][1]()
    raise ImageError(f"{where}: one image is expected, found {_describe(source)}")


def _unpacked(source: Any) -> Any:
    """An array of paths or of other objects as a list; anything else unchanged."""
    return (
        source.tolist()
        if isinstance(source, np.ndarray) and not arrays.is_array(source)
        else source
    )


def _flatten(source: Any, where: str) -> Iterator[_Named]:
    source = _unpacked(source)
    if isinstance(source, str | os.PathLike):
        path = expanded(source)
        for p in _folder(path) if _is_folder(path) else [path]:
            name = printable(p)
            label = name if where in ("images", name) else f"{where} {name}"
            yield label, functools.partial(decode.read_file, p, label), p
    elif isinstance(source, Image.Image):
        yield where, functools.partial(decode.from_pil, source, where), None
    elif isinstance(source, Item):
        yield source.where, source.load, source.path
    elif arrays.is_array(source):
        yield from ((label, load, None) for label, load in arrays.split(source, where))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        for i, inner in enumerate(source):
            yield from _flatten(inner, f"{where}[{i}]")
    else:
        yield where, functools.partial(_refuse, source, where), None


def _count(images: Any) -> int | None:
    images = _unpacked(images)
    if arrays.is_array(images):
        return int(images.shape[0]) if images.ndim == 4 else 1
    if isinstance(images, Image.Image):
        return 1
    if isinstance(images, str | os.PathLike):
        path = expanded(images)
        return len(_images_among(walk(path).files)) if _is_folder(path) else 1
    if isinstance(images, list | tuple):
        counts = [_count(i) for i in images]
        return None if None in counts else sum(c for c in counts if c is not None)
    return (
        len(images)
        if isinstance(images, Sized)
        else 1
        if not isinstance(images, Iterable)
        else None
    )


def _is_folder(path: Path) -> bool:
    """Whether an entry of a list is a folder.

    A name with an image suffix counts as a file: on a network disk a stat call per file is slow.
    """
    return path.suffix.lower() not in SUFFIXES and path.is_dir()


def _folder(path: Path) -> list[Path]:
    """The images of a folder; its slides are named in a warning.

    Raises ImageError where there is no image.
    """
    found, name = list_images(path), printable(path)
    files = walk(path).files
    slides = _slides_among(files)
    if others := [printable(p.name) for p in files if p.suffix.lower() in _OTHERS]:
        listed = ", ".join(others[:3] + ["..."] * (len(others) > 3))
        log.warning(
            "%s: %d images of unsupported formats are left out (%s): save them as PNG or JPEG",
            name,
            len(others),
            listed,
        )
    advice = f"`pathencoder encode {name} --out FOLDER` encodes their tiles"
    if not found and slides:
        raise ImageError(f"no images in {name}, but slides ({slides[0]}): {advice}")
    if not found:
        raise ImageError(f"no images in {name} (looked for {', '.join(sorted(SUFFIXES))})")
    if slides:
        log.warning(
            "%s: slides are left out (%s): %s",
            name,
            ", ".join(slides[:3] + ["..."] * (len(slides) > 3)),
            advice,
        )
    return found


def decode_image(data: bytes, where: str = "image") -> Pixels:
    """Decode the bytes of an image file, by the same rules as a file on disk.

    Args:
        data: The whole file, for example a member of a tar shard.
        where: What an error calls it.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageError: It is not an image, damaged, or not supported.
    """
    return decode.read_file(io.BytesIO(data), where)


def _refuse(source: object, where: str) -> Pixels:
    raise ImageError(f"{where}: {_describe(source)} is not an image, a path, or a list of those")


def _describe(source: object) -> str:
    return (
        f"{type(source).__name__} {str(source)[:40]!r}"
        if isinstance(source, str | int | float)
        else f"a {type(source).__name__}"
    )
