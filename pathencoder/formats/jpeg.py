"""Decode JPEG files and detect missing pixels.

libjpeg fills missing pixels with grey and only warns; Pillow drops the warning. Here the end marker
of a scan is removed and the decoder gets only the compressed data: if they end too early, or if
many are left over, the image is damaged. Files of several scans (progressive ones) are decoded
unchanged, after a check that every scan is present.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from PIL import Image

from pathencoder.formats.jpeg_colours import STARTS_OF_FRAME

_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
# A code of ones does not occur in any JPEG: the padding feeds the decoder's look-ahead and decodes
# to less than two blocks of 8 x 8 px where the data are cut.
_PADDING = b"\xff\x00" * 8
# Markers that end a scan: not stuffing, fill bytes, or expected restart markers.
_OTHER = re.compile(rb"\xff(?![\x00\xff])")
_OTHER_THAN_RESTART = re.compile(rb"\xff(?![\x00\xff\xd0-\xd7])")
_TAIL = 64  # bytes at the end of a scan; the decoder must read into them
_COEFFICIENTS = 64
_DAMAGED = "the file is truncated or damaged, copy it again from its source"


class DamagedJpeg(OSError):
    """A JPEG that lacks pixels, or whose data do not fit its size."""


class _Scan(NamedTuple):
    """The header of one scan.

    Attributes:
        frame: Marker of its frame, which gives the coding process.
        components: Numbers of the frame's components.
        holds: Components in this scan.
        spectrum: First and last coefficient.
        low: Bits that later scans refine.
        restarts: Whether restart markers are expected inside the data.
        start: Offset of its compressed data.
    """

    frame: int
    components: tuple[int, ...]
    holds: tuple[int, ...]
    spectrum: tuple[int, int]
    low: int
    restarts: bool
    start: int


class _Pieces:
    """A file object for Pillow that returns one piece per read."""

    def __init__(self, pieces: list[bytes], source: IO[bytes]) -> None:
        self._pieces = pieces
        self._source = source

    @property
    def left(self) -> int:
        """Number of pieces that were not read."""
        return len(self._pieces)

    def read(self, _size: int = -1) -> bytes:
        if not self._pieces:
            raise DamagedJpeg(f"its data end before its last pixel: {_DAMAGED}")
        return self._pieces.pop(0)

    def seek(self, offset: int, _whence: int = 0) -> int:
        return offset  # Pillow seeks to the start once, before it reads

    def close(self) -> None:
        self._source.close()


def load(image: Image.Image) -> None:
    """Decode an opened JPEG completely, or raise.

    Args:
        image: Opened by Pillow, not decoded yet.

    Raises:
        DamagedJpeg: Compressed data or scans are missing, or many are left over.
    """
    source: IO[bytes] = image.fp  # type: ignore[attr-defined]
    tiles, start = list(image.tile), source.tell()  # type: ignore[attr-defined]
    body, tail = _in_two(source)
    if _has_one_scan(image, body, start) and _load_pieces(
        image, _Pieces(_padded(body, tail), source)
    ):
        return
    # Several scans, data after the end marker (a second picture, a camera's notes), or damage.
    data = body + tail
    scans = list(_scans(data))
    if not scans:
        raise DamagedJpeg(f"it holds no image data: {_DAMAGED}")
    image.tile, image.fp = tiles, source  # type: ignore[attr-defined]
    if _is_sequential(scans[0]):
        end = _end_of_scan(data, scans[0].start, restarts=scans[0].restarts)
        cut = max(scans[0].start, end - _TAIL)
        if not _load_pieces(image, _Pieces(_padded(data[:cut], data[cut:end]), source)):
            raise DamagedJpeg(f"data are left over after its last pixel: {_DAMAGED}")
    else:
        _check_scans(scans)
        source.seek(0)
        image.load()


def _in_two(source: IO[bytes]) -> tuple[bytes, bytes]:
    try:
        size = os.fstat(source.fileno()).st_size  # cheaper on a disk than to seek the end
    except OSError:  # bytes in memory
        size = source.seek(0, os.SEEK_END)
    source.seek(0)
    return source.read(max(0, size - _TAIL)), source.read(min(size, _TAIL))


def _has_one_scan(image: Image.Image, body: bytes, start: int) -> bool:
    """Whether one scan holds all components, and its data start where Pillow stopped reading."""
    layers = getattr(image, "layers", 0)
    header = bytes((0xFF, _START_OF_SCAN, 0, 6 + 2 * layers, layers))
    at = start - 8 - 2 * layers
    return "progressive" not in image.info and at > 0 and body.startswith(header, at)


def _is_sequential(scan: _Scan) -> bool:
    return scan.frame in _SEQUENTIAL and set(scan.holds) == set(scan.components)


def _padded(body: bytes, tail: bytes) -> list[bytes]:
    """The pieces to decode: the second without its end marker, padded for the look-ahead."""
    return [body, tail[: _end_of_scan(tail, 0, restarts=True)] + _PADDING]


def _load_pieces(image: Image.Image, pieces: _Pieces) -> bool:
    """Decode, and return whether the last piece was read."""
    image.fp = pieces  # type: ignore[attr-defined]
    image.load()
    return not pieces.left


def _end_of_scan(data: bytes, start: int, *, restarts: bool) -> int:
    """Offset of the end of the compressed data: the first marker that is not part of them."""
    found = (_OTHER_THAN_RESTART if restarts else _OTHER).search(data, start)
    return found.start() if found else len(data)


def _check_scans(scans: list[_Scan]) -> None:
    """Raise DamagedJpeg unless the scans hold every bit of every coefficient."""
    if scans[0].frame in _SEQUENTIAL:
        found = {number for scan in scans for number in scan.holds}
        complete = found >= set(scans[0].components)
    elif scans[0].frame == _PROGRESSIVE:
        bits = {number: [1] * _COEFFICIENTS for number in scans[0].components}
        for scan in scans:
            for number in scan.holds:
                first, last = scan.spectrum
                bits[number][first : last + 1] = [scan.low] * (last + 1 - first)
        complete = not any(any(low) for low in bits.values())
    else:  # lossless and arithmetic coding: rare, not checked
        complete = True
    if not complete:
        raise DamagedJpeg(f"it lacks scans: {_DAMAGED}")


def _scans(data: bytes) -> Iterator[_Scan]:
    """The scans in file order, up to the end marker of the first image or to damage."""
    frame, restarts, at = 0, False, 2
    components: tuple[int, ...] = ()
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker in (0, 0xFF):
            at += 1
            continue
        if marker == 0xD9:
            return
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : end]
        if marker in STARTS_OF_FRAME:
            frame, components = marker, tuple(body[6::3])
        elif marker == _RESTART_INTERVAL:
            restarts = any(body)
        elif marker == _START_OF_SCAN and len(body) >= 4:
            scan = _Scan(
                frame=frame,
                components=components,
                holds=tuple(body[1:-3:2]),
                spectrum=(body[-3], body[-2]),
                low=body[-1] & 15,
                restarts=restarts,
                start=end,
            )
            yield scan
            end = _end_of_scan(data, end, restarts=restarts)
        at = end
