"""Pictures that pathencoder has drawn say so: no other picture, and no input, is replaced by one.

A picture may have the name of a photo of the user, or of the slide itself, where the output folder
is also a folder of inputs.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, PngImagePlugin

from pathencoder.files import whole_file
from pathencoder.walk import printable

_MARK = "drawn by pathencoder"
_KEY = "Comment"  # of a PNG


def save_picture(image: Image.Image, file: Path) -> None:
    """Save a picture with the mark by which `may_replace` knows it.

    Args:
        image: RGB.
        file: .png, else a JPEG is written; an existing file is replaced when the new one is
            complete.

    Raises:
        StoreError: It cannot be written.
    """
    with whole_file(file) as temporary:
        if file.suffix.lower() == ".png":
            text = PngImagePlugin.PngInfo()
            text.add_text(_KEY, _MARK)
            image.save(temporary, "PNG", optimize=True, pnginfo=text)
        else:
            image.save(temporary, "JPEG", quality=85, optimize=True, comment=_MARK.encode())


def may_replace(file: Path, *, overwrite: bool) -> bool:
    """Whether a picture may take the place of a file.

    Args:
        file: Where the picture goes.
        overwrite: The user wants existing files replaced.

    Returns:
        True where nothing is there, an empty file, or a picture that pathencoder has drawn.
    """
    return overwrite or not file.exists() or file.stat().st_size == 0 or _is_marked(file)


def notes_on(file: Path, *, overwrite: bool) -> list[str]:
    """A note where `may_replace` refuses a file."""
    if may_replace(file, overwrite=overwrite):
        return []
    return [
        f"{printable(file)} was not drawn by pathencoder and is kept: move it, or replace it with"
        " --overwrite (overwrite=True in Python)"
    ]


def _is_marked(file: Path) -> bool:
    try:
        with Image.open(file) as picture:
            said = picture.info.get(_KEY if picture.format == "PNG" else "comment", "")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False  # no picture, or a damaged one
    return said in (_MARK, _MARK.encode())
