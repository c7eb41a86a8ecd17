"""Write feature files of every layout."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pathencoder._version import __version__
from pathencoder.features import annotated, checksums, containers, layouts
from pathencoder.features.store import Content, Rows
from pathencoder.files import Mismatch, make_folder, remove_incomplete, whole_file, whole_folder
from pathencoder.slides.quality import COLUMNS
from pathencoder.walk import printable

RowsOf = Callable[[int, int], Rows]  # the rows from start to stop
_BLOCK = containers.ZARR_ROWS  # rows written at a time


def write_features(
    path: Path,
    content: Content,
    count: int,
    row_shape: tuple[int, ...],
    rows: RowsOf,
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """Write a feature file; it gets its name when all of it is on disk.

    The caller holds the lock of the file, so that unfinished files of the same name are remains
    of a process that was killed; they are removed.

    Args:
        path: The file; of the layout zarr, a folder.
        content: What it holds beside its rows.
        count: Number of rows.
        row_shape: Shape of one row.
        rows: Returns the rows from start to stop, float32 [stop - start, *row_shape].
        confirm: Called before a file gets its name; raises where that must not be.

    Raises:
        Mismatch: The rows do not fit into the numbers of the layout.
        StoreError: It cannot be written.
        MissingExtra: The layout is zarr, and zarr is not installed.
    """
    make_folder(path.parent)
    remove_incomplete(path)
    if content.layout == "zarr":
        with whole_folder(path) as temporary:
            root = containers.new_folder(temporary)
            _write_rows(root, content, count, row_shape, rows, path)
            _write_rest(root, content, count, row_shape, path)
            checksums.write_folder(temporary, layouts.feature_name(content.layout))
            confirm()
        return
    with whole_file(path) as temporary:
        with containers.new_file(temporary) as file:
            data = _write_rows(file, content, count, row_shape, rows, path)
            _write_rest(file, content, count, row_shape, path)
            begin = checksums.BLOCK
            if data.id.get_storage_size():
                begin = data.id.get_offset() or checksums.BLOCK
            end = begin + data.id.get_storage_size()
        checksums.write(temporary, begin, end)
        confirm()
    if content.layout == "clam":  # last: one without its feature file is of another program
        _write_tensor(layouts.tensor_path(path), count, row_shape, rows, confirm)


def _write_rows(
    file: Any,
    content: Content,
    count: int,
    row_shape: tuple[int, ...],
    rows: RowsOf,
    path: Path,
) -> Any:
    """The rows, in the numbers of the layout; returns their array."""
    if content.layout in layouts.ANNOTATED:
        data = annotated.new_rows(file, (count, *row_shape))
    else:
        name, dtype = layouts.feature_name(content.layout), layouts.feature_dtype(content.layout)
        data = containers.new_array(file, name, (count, *row_shape), dtype)
    for start, stop in _blocks(count):
        block = rows(start, stop)
        data[start:stop] = _as_float16(block, path) if content.layout == "stamp" else block
    return data


def _as_float16(block: Rows, path: Path) -> NDArray[np.float16]:
    """Rows in float16; raises Mismatch where a number would become infinity."""
    with np.errstate(over="ignore"):
        small = block.astype(np.float16)
    lost = np.isinf(small) & np.isfinite(block)
    if lost.any():
        raise Mismatch(
            f"{path}: the largest number of its rows is {np.abs(block[lost]).max():,.6g}. The"
            " layout stamp holds float16, up to 65,504. Write it with --layout trident"
            " (layout='trident' in Python), or with clam, anndata or zarr; the rows that are"
            " finished are kept for it"
        )
    return small


def _write_rest(
    file: Any, content: Content, count: int, row_shape: tuple[int, ...], path: Path
) -> None:
    """Everything but the rows."""
    attributes = _attributes(content)
    failed = [(f.part, f.reason, f.kind) for f in content.failures]
    if content.layout in layouts.ANNOTATED:
        place = content.place
        annotated.write_rest(
            file,
            {"unit": "px", **attributes} if place is not None else attributes,
            count=count,
            width=row_shape[0],
            corners=None if place is None else place.coords,
            columns=content.qc,
            keys=content.keys,
            failed=failed,
        )
    else:
        _write_parts(file, content, failed)
        if content.place is not None:
            encoder = str(attributes.get("encoder", ""))
            for where, values in layouts.attributes(
                content.layout, content.place, encoder, printable(path.parent)
            ).items():
                containers.set_attributes(file[where], dict(values))
    containers.set_attributes(file, attributes)


def _write_parts(file: h5py.File, content: Content, failed: Sequence[tuple[str, str, str]]) -> None:
    if content.place is not None:
        file.create_dataset("coords", data=layouts.coords_on_disk(content.layout, content.place))
    else:
        containers.write_text(file, "keys", list(content.keys))
        stats = np.array([stamp.stat for stamp in content.stamps], np.int64).reshape(-1, 3)
        file.create_dataset("sizes", data=stats[:, 0])
        file.create_dataset("times", data=stats[:, 1:])
        file.create_dataset(
            "hashes",
            data=np.array([stamp.content.hex().encode() for stamp in content.stamps], "S32"),
        )
    for name, values in content.qc.items():
        containers.set_attributes(
            file.create_dataset(name, data=values), {"description": COLUMNS[name]}
        )
    if failed:
        containers.write_text(file, "failed", np.array(failed, dtype=object))


def _attributes(content: Content) -> dict[str, Any]:
    """The attributes of the root."""
    settings = content.provenance.settings() if content.provenance is not None else None
    facts = {
        "layout": content.layout,
        "pathencoder_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **(settings or {}),
        "recipe": None if settings is None else json.dumps(settings),
        "failed_count": len(content.failures),
        **content.facts,
        **({} if content.place is None else layouts.facts_of(content.place)),
    }
    return {k: v for k, v in facts.items() if v is not None}


def _write_tensor(
    path: Path,
    count: int,
    row_shape: tuple[int, ...],
    rows: RowsOf,
    confirm: Callable[[], None],
) -> None:
    import torch

    make_folder(path.parent)
    remove_incomplete(path)
    whole = np.empty((count, *row_shape), np.float32)
    for start, stop in _blocks(count):
        whole[start:stop] = rows(start, stop)
    with whole_file(path) as temporary:
        torch.save(torch.from_numpy(whole), temporary)
        confirm()


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
