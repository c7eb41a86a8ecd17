"""numpy arrays and torch tensors -> uint8 RGB arrays; every dtype, shape and range that is refused, and the way out of it.

numpy has its channels last: HxW, HxWx1, HxWx3, HxWx4, and stacks NxHxWx1, x3, x4. torch has them first: [3, H, W] and [N, 3, H, W].
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pathencoder.errors import ImageError

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.uint8]
Array: TypeAlias = "npt.NDArray[Any] | Tensor"

MAX_PIXELS = 100_000_000
_HALF_A_LEVEL = 1 / 510  # float images may leave 0..1 by what rounding to 8 bits would take away anyway


def is_array(value: object) -> bool:
    """A numpy array or a torch tensor (torch is not imported for the question)."""
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def split(array: Array, where: str) -> Iterator[tuple[str, Callable[[], Pixels]]]:
    """One image, or a stack's images one by one: (what an error calls it, how to get its uint8 RGB [H, W, 3])."""
    bounds = functools.cache(lambda: _bounds(array))
    if array.ndim != 4:
        yield where, functools.partial(_convert, array, where, bounds)
        return
    for i in range(array.shape[0]):
        label = f"{where}, number {i} of the stack"
        yield label, functools.partial(_convert_member, array, i, label, bounds)


def check_size(width: int, height: int, where: str) -> None:
    """Raises ImageError for an image without pixels, or with more than a tile has."""
    if not width or not height:
        raise ImageError(f"{where}: an image of {width} x {height} px has nothing to look at")
    if width * height > MAX_PIXELS:
        limit = f"{MAX_PIXELS // 10**6} megapixels"
        raise ImageError(f"{where}: {width} x {height} px is more than {limit}; use it as a slide (`pathencoder encode --as slides`)")


def to_rgb(array: npt.NDArray[np.uint8]) -> Pixels:
    """uint8 HxW or HxWxC (1, 3 or 4 channels) -> HxWx3: grey repeated, alpha laid over white."""
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] == 4:
        return _over_white(array)
    rgb: Pixels = array if array.shape[2] == 3 else np.repeat(array, 3, axis=2)
    return rgb


def from_16_bits(array: npt.NDArray[Any]) -> Pixels:
    """0..65535 -> 0..255, rounded."""
    levels: Pixels = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return levels


def from_float(array: npt.NDArray[Any], where: str, bounds: tuple[float, float]) -> Pixels:
    """0..1 -> 0..255, rounded. `bounds`: smallest and largest value of the array, or of the stack that it belongs to."""
    if not np.isfinite(array).all():
        raise ImageError(f"{where}: {int((~np.isfinite(array)).sum())} values are NaN or infinite")
    _check_range(*bounds, where)
    levels: Pixels = (np.clip(array, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return levels


def finite_bounds(array: npt.NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) if there is none."""
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _convert_member(array: Array, index: int, where: str, bounds: Callable[[], tuple[float, float]]) -> Pixels:
    return _convert(array[index], where, bounds)


def _convert(array: Array, where: str, bounds: Callable[[], tuple[float, float]]) -> Pixels:
    pixels = _channels_last(array, where)
    check_size(pixels.shape[1], pixels.shape[0], where)
    if pixels.dtype == np.uint8:
        return to_rgb(pixels)
    if pixels.dtype == np.uint16:
        return to_rgb(from_16_bits(pixels))
    if np.issubdtype(pixels.dtype, np.floating):
        return to_rgb(from_float(pixels, where, bounds()))
    raise ImageError(f"{where}: dtype {pixels.dtype} is not taken: give uint8 (0..255), uint16 (0..65535) or float (0..1)")


def _channels_last(array: Array, where: str) -> npt.NDArray[Any]:
    shape = "x".join(map(str, array.shape)) or "a single number"
    if isinstance(array, np.ndarray):
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
            return array
        hint = "; channels come last in numpy: array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise ImageError(f"{where}: numpy array of shape {shape}; taken are HxW, HxWx3, HxWx4 and stacks NxHxWx3{hint}")
    if array.ndim == 3 and array.shape[0] == 3:
        return _to_numpy(array).transpose(1, 2, 0)
    hint = "; channels come first in torch: tensor.permute(2, 0, 1)" if array.ndim == 3 and array.shape[2] in (1, 3, 4) else ""
    raise ImageError(f"{where}: torch tensor of shape {shape}; taken are [3, H, W] and stacks [N, 3, H, W]{hint}")


def _to_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    wide = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor  # numpy has no bfloat16
    values: npt.NDArray[Any] = wide.numpy()
    return values


def _bounds(array: Array) -> tuple[float, float]:
    return finite_bounds(array if isinstance(array, np.ndarray) else _to_numpy(array))


def _check_range(low: float, high: float, where: str) -> None:
    found = f"{where}: float values from {low:.4g} to {high:.4g}"
    both = "give the image itself as uint8 0..255 or float 0..1, or pass a normalised tensor to encoder(x) instead of encode"
    if 0 < high <= 1.05 / 255 and low >= 0:
        raise ImageError(f"{found}: it looks scaled twice (divided by 255 two times); {both}")
    if low >= -_HALF_A_LEVEL and high <= 1 + _HALF_A_LEVEL:
        return
    if low >= 0 and 10 < high <= 255:
        raise ImageError(f"{found}: it looks like 0..255 kept as float; divide by 255 or turn it into uint8")
    raise ImageError(f"{found}, outside 0..1: it looks normalised already; {both}")


def _over_white(rgba: npt.NDArray[np.uint8]) -> Pixels:
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
