"""The colour space of a three-channel JPEG, from its markers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of all coding processes
_ALONE = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length
_SCAN, _APP0, _APP14 = 0xDA, 0xE0, 0xEE


def jpeg_colours(data: bytes) -> Literal["RGB", "YCbCr"] | None:
    """The colour space of a three-channel JPEG, by the rules of libjpeg (jdapimin.c).

    Args:
        data: The beginning of a JPEG, up to its first scan.

    Returns:
        "YCbCr" with a JFIF marker, or where colour has a lower resolution than brightness;
        else that of an Adobe marker; else "RGB" where the channels have these names; else None.
    """
    adobe, jfif, frame = None, False, b""
    for marker, body in _segments(data):
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            jfif = True
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif marker in STARTS_OF_FRAME:
            frame = body
    if len(frame) < 15 or frame[5] != 3:
        return None
    names, sampling = frame[6:15:3], frame[7:15:3]
    if jfif or sampling[0] > max(sampling[1:]) or (adobe == 1):
        return "YCbCr"
    return "RGB" if adobe == 0 or names == b"RGB" else None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and their contents up to the first scan or to damage."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker == _SCAN or length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
