"""Atomic writes of small texts and of matplotlib figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.files import whole_file

if TYPE_CHECKING:
    # matplotlib is an extra: it may be missing where types are checked
    from matplotlib.figure import Figure  # type: ignore[import-not-found]


def stamp_of(files: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with the name, size or time of one of the files.

    A cache that is keyed by it is not used for files that have changed.

    Args:
        files: In any order.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Args:
        path: The file, in an existing folder.
        text: Its content.

    Raises:
        StoreError: It cannot be written. An older file is unchanged.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Add to a text file, all of the text or nothing. The file is rewritten: for small files.

    Raises:
        StoreError: It cannot be written. The file is unchanged.
    """
    write_text(path, (path.read_text(encoding="utf-8") if path.exists() else "") + text)


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Save a figure in the format that the path's suffix names, whole or not at all.

    Raises:
        StoreError: It cannot be written.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
