"""Decode JPEG tiles straight into a batch.

Pillow decodes to four bytes a pixel, packs them to three, and the batch takes a copy. With
simplejpeg, libjpeg-turbo writes to the batch: the same pixels in half the time. Only plain files
are decoded here: baseline, eight bits, three colours in one scan, without Exif (which may turn the
image) and Adobe's marker (which may state other colours). All others, and those of which libjpeg
warns, are left to `decode_image`, whose rules say what is damaged.
"""

from __future__ import annotations

import numpy as np
import simplejpeg

_FRAME = b"\xff\xc0\x00\x11\x08"  # baseline, three components of eight bits; then height and width
_SCAN = b"\xff\xda\x00\x0c\x03"  # of all three components
_OF_OTHERS = (b"Exif\x00", b"Adobe")
_HEADER = 4096  # bytes in which both start, unless there is a large profile or comment
_MOST = 4096 * 4096  # pixels; beyond them, the limits of `decode_image` decide


def decode_plain(data: bytes, into: np.ndarray) -> np.ndarray | None:
    """Decode a plain JPEG.

    Args:
        data: The file.
        into: uint8 [H, W, 3], contiguous; it is used where the image has this size, and may hold
            anything where None is returned.

    Returns:
        `into`, or another array of uint8 [H, W, 3] for an image of another size; None for a file
        that is not plain, is large or has damage.
    """
    frame = data.find(_FRAME, 0, _HEADER)
    scan = data.find(_SCAN, frame, _HEADER)
    if frame < 0 or scan < 0 or any(data.find(mark, 0, scan) >= 0 for mark in _OF_OTHERS):
        return None
    size = data[frame + 5 : frame + 9]
    height, width = int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
    if height * width > _MOST:
        return None
    out = into if (height, width) == into.shape[:2] else np.empty((height, width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError:  # what libjpeg warns of too: missing or superfluous data
        return None
    return out
