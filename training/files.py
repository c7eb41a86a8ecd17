"""Files that a kill or a full disk leaves as they were: small texts, and pictures of matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: The file, in a folder that is there.
        text: What it is to hold, in UTF-8.

    Raises:
        StoreError: It cannot be written; what was there before still is.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Add to a text file, all of it or nothing; it is written anew, so only for small ones.

    Raises StoreError.
    """
    write_text(path, (path.read_text(encoding="utf-8") if path.exists() else "") + text)


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Save a figure in the format that the path's suffix names, whole or not at all.

    Raises StoreError.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix.removeprefix(".") or "png")
