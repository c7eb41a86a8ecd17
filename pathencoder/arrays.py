"""Convert numpy arrays and torch tensors to uint8 RGB arrays.

A dtype, shape or range that is not supported raises ImageError, which says how to convert it.

numpy arrays have their channels last: HxW, HxWx1, HxWx3, HxWx4, and stacks NxHxWx1, x3, x4. torch
tensors have them first: [3, H, W] and [N, 3, H, W].
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pathencoder import bit_depth
from pathencoder.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.uint8]
Array: TypeAlias = "npt.NDArray[Any] | Tensor"

_NOT_NUMERIC = "OSTU"  # kinds of arrays that hold objects or text: paths, images of different sizes
MAX_PIXELS = 100_000_000
_FAINT = 16  # of 255: an image whose alpha is at most this counts as transparent
# a float image whose maximum is below this was divided by the wrong range
_TWELVE_IN_SIXTEEN = 4096 / 65535
# float images may exceed 0..1 by what rounding to 8 bits removes
_HALF_A_LEVEL = 1 / 510


def is_array(value: object) -> bool:
    """Whether a value is a numeric numpy array or a torch tensor. Does not import torch."""
    torch = sys.modules.get("torch")
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in _NOT_NUMERIC
    return torch is not None and isinstance(value, torch.Tensor)


def split(array: Array, where: str) -> Iterator[tuple[str, Callable[[], Pixels]]]:
    """Split an array into its images: one, or those of a stack.

    Args:
        array: One image or a stack, in a form that the module's docstring lists.
        where: What an error calls it.

    Yields:
        The name of an image in errors, and a function that returns its uint8 RGB [H, W, 3] or
        raises ImageError.
    """
    bounds = functools.cache(lambda: _bounds(array))
    if array.ndim != 4:
        yield where, functools.partial(_convert, array, where, bounds)
        return
    for i in range(array.shape[0]):
        label = f"{where}, number {i} of the stack"
        yield label, functools.partial(_convert_member, array, i, label, bounds)


def check_size(width: int, height: int, where: str) -> None:
    """Check the size of an image.

    Raises:
        ImageError: The image has no pixels, or more than `MAX_PIXELS`.
    """
    if not width or not height:
        raise ImageError(f"{where}: an image of {width} x {height} px has no pixels")
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise ImageError(
            f"{where}: {width} x {height} px is more than {limit}; use it as a slide (`pathencoder"
            " encode --as slides`)"
        )


def slide_error(where: str, name: str = "FILE") -> ImageError:
    """The error for a whole slide where an image is expected; `name` is the name of its file."""
    return ImageError(
        f"{where}: a whole slide, not an image of one field: pathencoder.encode_slide({name!r}) or"
        f" `pathencoder encode {name} --out FOLDER` encodes its tiles, `pathencoder nuclei` finds"
        " its nuclei"
    )


def to_rgb(array: npt.NDArray[np.uint8], where: str) -> Pixels:
    """Convert uint8 HxW or HxWxC (1, 3 or 4 channels) to HxWx3.

    Grey is repeated, alpha is composited over white.

    Raises:
        ImageError: The image has another number of channels, or is transparent everywhere.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] == 4:
        _check_opacity(array, where)
        return over_white(array)
    if array.shape[2] not in (1, 3):
        raise ImageError(
            f"{where}: {array.shape[2]} channels; supported are one (grey), three (RGB) and four"
            " (RGB and alpha)"
        )
    rgb: Pixels = array if array.shape[2] == 3 else np.repeat(array, 3, axis=2)
    return rgb


def from_whole(
    array: npt.NDArray[Any],
    where: str,
    bounds: tuple[float, float],
    limits: bit_depth.Range = bit_depth.OF_16_BITS,
) -> Pixels:
    """Scale integers of more than 8 bits, HxW or HxWxC, to 0..255; alpha by its full range.

    Args:
        array: Integers; with four channels the last is alpha.
        where: What an error calls it.
        bounds: Smallest and largest value of the colours, or of those of the whole stack.
        limits: The range that the colours are scaled by.

    Returns:
        uint8 of the same shape.

    Raises:
        ImageError: The values do not fit the range, or use little of it.
    """
    colours = bit_depth.to_8_bits(without_alpha(array), where, bounds, limits)
    if colours.shape == array.shape:
        return colours
    alpha = bit_depth.to_8_bits(
        array[..., 3:], where, (0, limits.top), bit_depth.Range(limits.top, stated=True)
    )
    return np.concatenate([colours, alpha], axis=2)


def without_alpha(array: Any) -> Any:
    """The first three of four channels; the whole array if it does not have four."""
    return array[..., :3] if array.ndim > 2 and array.shape[-1] == 4 else array


def from_float(array: npt.NDArray[Any], where: str, bounds: tuple[float, float]) -> Pixels:
    """Scale floats from 0..1 to 0..255, rounded.

    Args:
        array: Floats of any shape.
        where: What an error calls it.
        bounds: Smallest and largest value of the array, or of the stack that it belongs to.

    Returns:
        uint8 of the same shape.

    Raises:
        ImageError: Values are not finite, or outside 0..1.
    """
    if not np.isfinite(array).all():
        raise ImageError(f"{where}: {int((~np.isfinite(array)).sum())} values are NaN or infinite")
    _check_range(*bounds, where)
    levels: Pixels = (np.clip(array, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return levels


def finite_bounds(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) without finite values."""
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _convert_member(
    array: Array, index: int, where: str, bounds: Callable[[], tuple[float, float]]
) -> Pixels:
    return _convert(array[index], where, bounds)


def _convert(array: Array, where: str, bounds: Callable[[], tuple[float, float]]) -> Pixels:
    pixels = _channels_last(array, where)
    check_size(pixels.shape[1], pixels.shape[0], where)
    if pixels.dtype == np.uint8:
        return to_rgb(pixels, where)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        return to_rgb(from_whole(pixels, where, bounds()), where)
    if np.issubdtype(pixels.dtype, np.floating):
        return to_rgb(from_float(pixels, where, bounds()), where)
    supported = "give uint8 (0..255), uint16 (0..65535) or float (0..1)"
    raise ImageError(
        f"{where}: dtype {pixels.dtype}{_value_range(pixels)} is not supported:"
        f" {supported}{_conversion(pixels)}"
    )


def _value_range(pixels: npt.NDArray[Any]) -> str:
    return (
        f" with values from {pixels.min()} to {pixels.max()}" if pixels.dtype.kind in "iu" else ""
    )


def _conversion(pixels: npt.NDArray[Any]) -> str:
    """The call that converts an array of an unusual type to a supported one."""
    if pixels.dtype.kind == "b":
        return "; convert a black-and-white mask with (array * 255).astype('uint8')"
    if pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 255:
        return "; if its range is 0..255, array.astype('uint8')"
    return ""


def _channels_last(array: Array, where: str) -> npt.NDArray[Any]:
    shape = "x".join(map(str, array.shape)) or "a single number"
    if isinstance(array, np.ndarray):
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
            return array
        hint = (
            "; channels come last in numpy: array.transpose(1, 2, 0)"
            if array.ndim == 3 and array.shape[0] in (1, 3, 4)
            else ""
        )
        raise ImageError(
            f"{where}: numpy array of shape {shape}; supported are HxW, HxWx3, HxWx4 and stacks"
            f" NxHxWx3{hint}"
        )
    if array.ndim == 3 and array.shape[0] == 3:
        return _to_numpy(array).transpose(1, 2, 0)
    hint = (
        "; channels come first in torch: tensor.permute(2, 0, 1)"
        if array.ndim == 3 and array.shape[2] in (1, 3, 4)
        else ""
    )
    raise ImageError(
        f"{where}: torch tensor of shape {shape}; supported are [3, H, W] and stacks"
        f" [N, 3, H, W]{hint}"
    )


def _to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16
    wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    values: npt.NDArray[Any] = wide.numpy()
    return values


def _bounds(array: Array) -> tuple[float, float]:
    """Smallest and largest value of the colours, without alpha."""
    values = without_alpha(array) if isinstance(array, np.ndarray) else _to_numpy(array)
    if values.dtype.kind == "u":
        return int(values.min(initial=0)), int(values.max(initial=0))
    return finite_bounds(values)


def _check_range(low: float, high: float, where: str) -> None:
    found = f"{where}: float values from {low:.4g} to {high:.4g}"
    both = (
        "give the image itself as uint8 0..255 or float 0..1, or pass a normalised tensor to"
        " encoder(x) instead of encode"
    )
    if 0 < high <= 1.05 / 255 and low >= 0:
        raise ImageError(f"{found}: it looks scaled twice (divided by 255 two times); {both}")
    if 0 < high <= _TWELVE_IN_SIXTEEN and low >= 0:
        reason = (
            "nearly black, as if it was divided by 65535 where its range is smaller (4095, 255)"
        )
        raise ImageError(f"{found}: {reason}; divide by the range of the camera")
    if low >= -_HALF_A_LEVEL and high <= 1 + _HALF_A_LEVEL:
        return
    if low >= 0 and 10 < high <= 255:
        raise ImageError(
            f"{found}: it looks like 0..255 stored as float; divide by 255 or convert it to uint8"
        )
    raise ImageError(f"{found}, outside 0..1: it looks normalised already; {both}")


def over_white(rgba: npt.NDArray[np.uint8]) -> Pixels:
    """Composite uint8 [..., 4] over white: [..., 3], rounded to the nearest level."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(colour)
    weight = alpha.astype(np.uint16)
    total = colour * weight + 255 * (255 - weight) + 127  # at most 65152: fits 16 bits
    return (total // 255).astype(np.uint8)


def _check_opacity(rgba: npt.NDArray[np.uint8], where: str) -> None:
    highest = int(rgba[..., 3].max())
    if highest >= _FAINT:
        return
    found = (
        f"nearly transparent (alpha is at most {highest} of 255)"
        if highest
        else "fully transparent"
    )
    raise ImageError(
        f"{where}: {found}, so nothing of it is visible. If the alpha channel is wrong, drop it:"
        " image.convert('RGB')"
    )
