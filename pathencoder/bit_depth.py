"""Scale integers of more than 8 bits to 0..255, by the range that their file states.

Files often store a camera's 10, 12 or 14 bits in 16 without stating it. By the range of 16 bits
such an image is nearly black; by its maximum it would be scaled differently from other images of
the set. Neither is right, so it is refused unless the file states the range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pathencoder.errors import ImageError

_USUAL = (8, 10, 12, 14, 16)  # bit depths of cameras
MAXIMA = frozenset(2**bits - 1 for bits in range(7, 17))  # maxima that can be the end of a range


@dataclass(frozen=True)
class Range:
    """The values that an image may have.

    Attributes:
        top: The largest value; 0 is the smallest.
        stated: Whether the file states the range; else it follows from the type.
    """

    top: int
    stated: bool = False


OF_16_BITS = Range(65535)


def to_8_bits(
    values: npt.NDArray[Any], where: str, bounds: tuple[float, float], limits: Range = OF_16_BITS
) -> npt.NDArray[np.uint8]:
    """Scale integers to 0..255, rounded.

    Args:
        values: Integers of any type and shape.
        where: What an error calls the image.
        bounds: Its smallest and largest value, or those of the stack that it belongs to.
        limits: The range that it is scaled by.

    Returns:
        uint8 of the same shape.

    Raises:
        ImageError: The values do not fit the range, or use so little of it that it must be wrong.
    """
    low, high = (int(bound) for bound in bounds)
    if low < 0 or high > limits.top:
        source = "the file says" if limits.stated else "the supported range is"
        advice = _advice(high) if low >= 0 else "Give it as 8 bits"
        raise ImageError(
            f"{where}: whole numbers from {low} to {high}; {source} 0 to {limits.top}. {advice}"
        )
    if not limits.stated:
        check_use(high, where, limits.top)
    scaled = (values.astype(np.uint64) * 510 + limits.top) // (2 * limits.top)
    return scaled.astype(np.uint8)


def check_use(high: int, where: str, top: int = OF_16_BITS.top) -> None:
    """Check that an image uses at least a quarter of its range; zeros are black in every range.

    Args:
        high: The largest value of the image.
        where: What an error calls it.
        top: The end of the range.

    Raises:
        ImageError: The largest value uses less.
    """
    if 0 < high <= top >> 2:
        found = f"{where}: a range of 0 to {top}, but no value above {high}"
        guess = f"it looks like {_bits(high)} bits stored in more, or is very dark"
        raise ImageError(f"{found}: {guess}. {_advice(high)}")


def check_high_bytes(high: int, where: str) -> None:
    """`check_use` where only the upper bytes of 16-bit values are known; `high` is the largest."""
    check_use(high << 8 | 255, where)


def _bits(high: int) -> int:
    return next((bits for bits in _USUAL if high < 2**bits), 32)


def _advice(high: int) -> str:
    bits = _bits(high)
    if bits == 8:
        return "If its range is 0..255, give it as 8 bits: image.astype('uint8')"
    how = f"(image / {2**bits - 1} * 255).round().astype('uint8') for {bits} bits"
    return f"Give it as 8 bits, scaled by the range of the camera: {how}"
