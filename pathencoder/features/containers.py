"""What feature files are kept in: HDF5 files and Zarr folders, through the same few functions.

Both libraries have groups, arrays and attributes with nearly the same methods; text and scalars
differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import MissingExtra
from pathencoder.features import checksums

ZARR_ROWS = 4096  # rows in a chunk
# The format of 2008, which every reader knows. Its metadata have checksums, so that damage is an
# error at once; reading a damaged file of the default format may never end.
_FORMAT = ("v108", "v108")


@contextlib.contextmanager
def opened(path: Path, *, rows: bool) -> Iterator[Any]:
    """Open a feature file or Zarr folder for reading, after comparing its checksums.

    Args:
        path: The file or folder.
        rows: Also compare the rows with theirs.

    Yields:
        An `h5py.File` or `zarr.Group`.

    Raises:
        MissingExtra: It is a Zarr folder, and zarr is not installed.
        ValueError: It is not what was written.
        Exception: Both libraries raise most of Python's errors on damaged files.
    """
    checksums.check(path, rows=rows)
    if path.is_dir():
        yield _zarr().open_group(str(path), mode="r", use_consolidated=False)
    else:
        with h5py.File(path, "r") as file:
            yield file


def new_file(path: Path) -> h5py.File:
    """A new HDF5 file, with room for its checksums."""
    return h5py.File(path, "w", libver=_FORMAT, userblock_size=checksums.BLOCK)


def new_folder(path: Path) -> Any:
    """A new Zarr folder of format 2, which every reader knows: its root, a `zarr.Group`.

    Raises:
        MissingExtra: zarr is not installed.
    """
    return _zarr().open_group(str(path), mode="w", zarr_format=2)


def is_zarr(path: Path) -> bool:
    """Whether a path is a Zarr folder."""
    return path.is_dir() and any((path / n).is_file() for n in (".zgroup", "zarr.json"))


def feature_files(path: Path) -> list[Path]:
    """The files that may hold features in a folder and in its folder h5_files, by name.

    A Zarr folder stands for itself.
    """
    if is_zarr(path):
        return [path]
    found = [*path.glob("*.h5"), *(path / "h5_files").glob("*.h5"), *path.glob("*.h5ad")]
    found += [folder for folder in path.glob("*.zarr") if is_zarr(folder)]
    return sorted(p for p in found if not p.name.startswith("."))


def holds_no_features(path: Path) -> bool:
    """Whether a file can be opened and has no features, as one of coordinates only."""
    try:
        with h5py.File(path, "r") as file:
            return not any(name in file for name in ("features", "feats", "patch_embeddings", "X"))
    except OSError:  # damaged: reading it says how
        return False


def new_array(group: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    """A new array of numbers, to be filled."""
    if isinstance(group, h5py.Group):
        return group.create_dataset(name, shape=shape, dtype=dtype)
    chunks = tuple(max(1, min(n, ZARR_ROWS)) if i == 0 else max(1, n) for i, n in enumerate(shape))
    return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks, compressors=None)


def write_array(group: Any, name: str, values: Any) -> Any:
    """Write numbers: an array, or one number as an array without dimensions."""
    values = np.asarray(values)
    array = new_array(group, name, values.shape, values.dtype.str)
    array[...] = values
    return array


def write_text(group: Any, name: str, values: str | Sequence[Any] | NDArray[Any]) -> Any:
    """Write text of any length: an array of any shape, or one text without dimensions."""
    array = np.array(values, dtype=object)
    if isinstance(group, h5py.Group):
        return group.create_dataset(name, data=array, dtype=h5py.string_dtype())
    made = group.create_array(
        name, shape=array.shape, dtype=str, chunks=tuple(max(1, n) for n in array.shape)
    )
    if array.size:
        made[...] = array
    return made


def text(array: Any) -> Any:
    """The text of an array, as an array of str; as str where it has no dimensions."""
    found = array.asstr()[()] if isinstance(array, h5py.Dataset) else array[()]
    return np.asarray(found, dtype=object) if np.ndim(found) else str(found)


def is_text(array: Any) -> bool:
    """Whether an array holds text."""
    return np.dtype(array.dtype).kind in "OTUS"


def plain(value: Any) -> Any:
    """An attribute as a Python scalar, where it is one."""
    return value.item() if isinstance(value, np.generic) else value


def set_attributes(node: Any, values: dict[str, Any]) -> None:
    """Set attributes; Zarr keeps them as JSON."""
    if not isinstance(node, h5py.HLObject):
        values = {
            k: v.tolist() if isinstance(v, np.ndarray) else plain(v) for k, v in values.items()
        }
    node.attrs.update(values)


def _zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise MissingExtra.of("zarr", "Reading and writing .zarr folders") from error
    return zarr
