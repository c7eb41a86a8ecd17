"""AnnData's form of features, in HDF5 (.h5ad) and in Zarr.

Each element is as https://anndata.readthedocs.io/en/stable/fileformat-prose.html describes it:

- `X`: the rows.
- `obs`: index "x_y" of a tile, with columns x and y (top left, level-0 pixels) and, where it was
  measured, the quality of the tile; or the key of an image.
- `obsm/spatial`: float64 [N, 2], the same corners.
- `var`: index ENCODER_0, ENCODER_1, ...
- `uns/pathencoder`: the attributes of the file, the unit of the corners, and `failed`.

The library anndata is not needed, and the rows are written in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.features import containers

UNS = "pathencoder"
_ROOT = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
_EMPTY = ("layers", "obsp", "varm", "varp")


def is_annotated(file: Any) -> bool:
    """Whether an open file or folder has AnnData's form."""
    return "X" in file and "obs" in file


def new_rows(file: Any, shape: tuple[int, ...]) -> Any:
    """The array of the rows, to be filled."""
    array = containers.new_array(file, "X", shape, "<f4")
    return _encoded(array, "array", "0.2.0")


def write_rest(
    file: Any,
    attributes: Mapping[str, Any],
    *,
    count: int,
    width: int,
    corners: NDArray[Any] | None,
    keys: Sequence[str],
    failed: Sequence[Sequence[str]],
    columns: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> None:
    """Write everything but the rows.

    Args:
        file: The root.
        attributes: For `uns/pathencoder`.
        count: Number of rows.
        width: Length of a row.
        corners: Of the tiles of a slide, [N, 2]; None for images.
        keys: Of images, N.
        failed: Three texts for each part that failed.
        columns: Further columns of `obs`, [N] by name.
    """
    containers.set_attributes(file, _ROOT)
    places = {} if corners is None else {"x": corners[:, 0], "y": corners[:, 1]}
    _frame(file, "obs", obs_names(corners, keys, count), {**places, **columns})
    _frame(file, "var", var_names(attributes, width), {})
    obsm = _group(file, "obsm")
    if corners is not None:
        _write(obsm, "spatial", corners.astype(np.float64))
    for name in _EMPTY:
        _group(file, name)
    ours = _group(_group(file, "uns"), UNS)
    for key, value in attributes.items():
        _write(ours, key, value)
    if failed:
        _write(ours, "failed", np.array(failed, dtype=object))


def obs_names(corners: NDArray[Any] | None, keys: Sequence[str], count: int) -> list[str]:
    """The name of each row: "x_y" of a tile, the key of an image, or its number."""
    if corners is not None:
        return [f"{x}_{y}" for x, y in corners.tolist()]
    return [str(key) for key in keys] if len(keys) else [str(i) for i in range(count)]


def var_names(attributes: Mapping[str, Any], width: int) -> list[str]:
    """The name of each column: ENCODER_0, ENCODER_1, ..."""
    name = attributes.get("encoder", "feature")
    return [f"{name}_{i}" for i in range(width)]


def read_attributes(file: Any) -> dict[str, Any]:
    """The attributes in `uns/pathencoder`, without `failed`; none in files of other programs."""
    ours = _ours(file)
    return {k: _read(ours[k]) for k in ours if k != "failed"} if ours is not None else {}


def read_failed(file: Any) -> list[tuple[str, str, str]]:
    """The parts that failed: three texts each."""
    ours = _ours(file)
    if ours is None or "failed" not in ours:
        return []
    return [(str(a), str(b), str(c)) for a, b, c in containers.text(ours["failed"])]


def read_corners(file: Any) -> NDArray[np.float64] | None:
    """The corners of tiles; None for images, and where another program wrote the file."""
    ours = _ours(file)
    if ours is None or "spatial" not in file["obsm"]:
        return None
    return np.asarray(file["obsm"]["spatial"][...], np.float64)


def read_obs_names(file: Any) -> list[str]:
    """The name of each row."""
    obs = file["obs"]
    return [str(name) for name in containers.text(obs[str(obs.attrs.get("_index", "_index"))])]


def _ours(file: Any) -> Any:
    return file["uns"][UNS] if "uns" in file and UNS in file["uns"] else None


def _frame(file: Any, name: str, index: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> None:
    group = file.create_group(name)
    containers.set_attributes(group, {"_index": "_index"})
    # an empty list has no dtype in HDF5
    order: Any = list(columns) if columns else np.array([], dtype=np.float64)
    containers.set_attributes(group, {"column-order": order})
    _encoded(group, "dataframe", "0.2.0")
    _encoded(containers.write_text(group, "_index", index), "string-array", "0.2.0")
    for column, values in columns.items():
        _write(group, column, values)


def _group(parent: Any, name: str) -> Any:
    return _encoded(parent.create_group(name), "dict", "0.1.0")


def _write(group: Any, name: str, value: Any) -> None:
    """Write one value as an element: text, a number, or an array of either."""
    if isinstance(value, str):
        _encoded(containers.write_text(group, name, value), "string", "0.2.0")
        return
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        _encoded(containers.write_text(group, name, array), "string-array", "0.2.0")
    else:
        kind = "array" if array.ndim else "numeric-scalar"
        _encoded(containers.write_array(group, name, array), kind, "0.2.0")


def _read(array: Any) -> Any:
    if containers.is_text(array):
        return containers.text(array)
    value = np.asarray(array[()])
    return value if value.ndim else value.item()


def _encoded(node: Any, kind: str, version: str) -> Any:
    containers.set_attributes(node, {"encoding-type": kind, "encoding-version": version})
    return node
