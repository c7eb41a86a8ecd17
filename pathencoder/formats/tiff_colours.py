"""JPEG in TIFF whose colour space is not the one in the TIFF header, which gives false colours.

Bio-Formats writes YCbCr JPEG under an RGB header. libtiff, which OpenSlide and Pillow use, trusts
the header, without a warning where brightness and colour have the same resolution.
"""

from __future__ import annotations

from typing import BinaryIO

from pathencoder.formats.jpeg_colours import jpeg_colours
from pathencoder.formats.tiff_tags import Page

_JPEG, _RGB, _YCBCR = 7, 2, 6  # values of Compression and PhotometricInterpretation
_FRONT = 1 << 16  # bytes that hold a JPEG's markers


def mismatch(stream: BinaryIO, page: Page) -> str:
    """What is wrong with the colours of a page, as the middle of a sentence.

    Args:
        stream: The file that `page` is of. Its position changes.
        page: One of its pages.

    Returns:
        "its header says RGB, its JPEG data hold YCbCr", or the other way round; "" where they agree
        or the colours are unknown.
    """
    if page.compression != _JPEG or page.first_data is None or page.samples != 3:
        return ""
    offset, length = page.first_data
    try:
        stream.seek(offset)
        stored = jpeg_colours(stream.read(min(length, _FRONT)))
    except (OSError, OverflowError, ValueError):
        return ""
    stated = {_RGB: "RGB", _YCBCR: "YCbCr"}.get(page.photometric)
    if stated is None or stored is None or stated == stored:
        return ""
    return f"its header says {stated}, its JPEG data hold {stored}"


def rewriting(name: str) -> str:
    """The command that rewrites a file with the colours of its JPEG data, which tifffile uses.

    Args:
        name: Name of the file, for the command.
    """
    name = name if set("\"'`$!\\").isdisjoint(name) else "IN.tif"
    read = f"import tifffile as t; t.imwrite('OUT.tif', t.imread('{name}', key=0)"
    how = "tile=(256, 256), photometric='rgb', compression='zlib', bigtiff=True"
    command = f'pip install tifffile imagecodecs; python -c "{read}, {how})"'
    return f"Rewrite it ({command})"
