"""Arrays of HDF5 files: images one at a time, and coordinates."""

from __future__ import annotations

import functools
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, ImageError
from pathencoder.images import Item
from pathencoder.walk import printable


def shape_of(file: Path, key: str) -> tuple[int, ...]:
    """The shape of an array.

    Raises:
        ConfigError: The file cannot be read, or has no such array.
    """
    return tuple(_array(file, key).shape)


def read(file: Path, key: str) -> NDArray[np.generic]:
    """An array, whole.

    Args:
        file: The file.
        key: The name of the array.

    Returns:
        The array.

    Raises:
        ConfigError: The file cannot be read, or has no such array.
    """
    try:
        with h5py.File(file, "r") as opened:
            return np.asarray(opened[key][()])
    except (OSError, KeyError) as error:
        raise _unreadable(file, key, error) from error


def images(file: Path, key: str) -> list[Item]:
    """The images of an array [N, H, W, 3], none of which is read yet.

    Args:
        file: The file.
        key: The name of the array.

    Returns:
        The images, in order.

    Raises:
        ConfigError: The file cannot be read, or the array holds no RGB images.
    """
    shape = shape_of(file, key)
    if len(shape) != 4 or shape[3] != 3:
        raise ConfigError(
            f"{printable(file)}: {key!r} has the shape {list(shape)}, not [N, H, W, 3]"
        )
    name = printable(file.name)
    return [
        Item(i, f"{name} image {i}", functools.partial(_image, file, key, i))
        for i in range(shape[0])
    ]


def _image(file: Path, key: str, number: int) -> Pixels:
    try:
        pixels = np.asarray(_array(file, key)[number])
    except (OSError, ConfigError) as error:
        raise ImageError(f"{printable(file)} image {number}: cannot be read ({error})") from error
    if pixels.dtype != np.uint8:
        raise ImageError(f"{printable(file)} image {number}: {pixels.dtype}, not uint8")
    return pixels


def _array(file: Path, key: str) -> h5py.Dataset:
    try:
        stat = file.stat()
        found = _opened(str(file), stat.st_mtime_ns, stat.st_size)[key]
    except (OSError, KeyError) as error:
        raise _unreadable(file, key, error) from error
    if not isinstance(found, h5py.Dataset):
        raise ConfigError(f"{printable(file)}: {key!r} is a group, not an array")
    return found


# Opening a file takes as long as reading ten images. h5py lets one thread in at a time.
@functools.lru_cache(maxsize=4)
def _opened(file: str, _modified: int, _size: int) -> h5py.File:
    return h5py.File(file, "r")


def _unreadable(file: Path, key: str, error: Exception) -> ConfigError:
    why = f"it has no array {key!r}" if isinstance(error, KeyError) else f"{error}"
    return ConfigError(
        f"{printable(file)} cannot be read as HDF5 ({why}): unpack or download it again"
    )
