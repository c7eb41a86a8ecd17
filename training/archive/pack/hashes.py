"""Perceptual hashes of tiles and slides, and pairs of them that are nearly equal.

A hash says of each of its places whether the picture becomes darker to the right (dHash): it stays
nearly the same when a picture is compressed again, and differs for another field.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.slides.reader import RGB

TILE_BITS = 2  # of 64: as many bits of two equal tiles may differ
SLIDE_BITS = 10  # of 256
_CROWD = 64  # equal parts of a hash of which not every pair is compared

Hashes = NDArray[np.uint64]


def hash_of(picture: RGB, side: int = 8) -> Hashes:
    """The hash of a picture.

    Args:
        picture: uint8 [h, w, 3].
        side: The hash has side x side bits.

    Returns:
        uint64 [side x side / 64].
    """
    grey = Image.fromarray(picture).convert("L")
    factor = max(1, min(grey.width // (2 * side + 2), grey.height // (2 * side)))
    small = grey.reduce(factor).resize((side + 1, side), Image.Resampling.BOX)
    values = np.asarray(small, np.int16)
    return np.packbits(values[:, 1:] < values[:, :-1]).view(">u8").astype(np.uint64)


def near(hashes: Hashes, most: int) -> list[tuple[int, int]]:
    """Pairs of hashes that differ in at most `most` bits.

    Hashes are compared where they agree in one of several parts: with more parts than bits that may
    differ, no pair is missed. Of very many that agree in a part, neighbours in order are compared.

    Args:
        hashes: uint64 [N, words].
        most: Bits.

    Returns:
        Pairs (i, j) with i < j, in order.
    """
    parts = hashes.astype(">u8").view(np.uint8)
    width = max(1, parts.shape[1] // (most + 1))
    found: set[tuple[int, int]] = set()
    for start in range(0, parts.shape[1] - width + 1, width):
        band = parts[:, start : start + width]
        keys = np.ascontiguousarray(band).view(f"V{width}").ravel()
        _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.lexsort((*hashes.T, group))
        ends = np.cumsum(sizes)
        for first, size in zip((ends - sizes)[sizes > 1], sizes[sizes > 1], strict=True):
            members = order[first : first + size]
            reach = size if size <= _CROWD else 2
            for step in range(1, reach):
                one, other = members[:-step], members[step:]
                same = np.unpackbits(parts[one] ^ parts[other], axis=1).sum(1) <= most
                pairs = zip(one[same].tolist(), other[same].tolist(), strict=True)
                found.update((min(pair), max(pair)) for pair in pairs)
    return sorted(found)


def as_text(hashed: Hashes) -> str:
    """A hash in hexadecimal."""
    return "".join(f"{word:016x}" for word in hashed.tolist())


def from_text(text: str) -> Hashes:
    """The hash that `as_text` wrote."""
    return np.array([int(text[i : i + 16], 16) for i in range(0, len(text), 16)], np.uint64)
