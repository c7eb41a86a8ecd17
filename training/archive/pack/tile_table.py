"""The table of a group's tiles: a row a tile, with its place, scale and quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathencoder.files import whole_file
from training.archive.pack.files import shard_name
from training.archive.pack.settings import Settings
from training.archive.store import arrow

_KINDS = {"x": "int32", "y": "int32", "cluster": "int8", "hash": "uint64"}  # others: float32
_QUALITY = ("tissue", "qc_blur", "qc_pen", "qc_fold")


def write_tile_table(
    file: Path, slides: Sequence[dict[str, Any]], number: int, settings: Settings
) -> None:
    """Write the table.

    Args:
        file: The Parquet file.
        slides: Of the group's journal, each with the columns of its scales.
        number: Of the group.
        settings: How it was packed.

    Raises:
        StoreError: It cannot be written.
        MissingExtra: pyarrow is not installed.
    """
    pa, pq = arrow()
    text = pa.dictionary(pa.int32(), pa.string())
    names = ["slide", "shard", "image", "mpp", "side", *_KINDS, *_QUALITY]
    parts: dict[str, list[Any]] = {name: [] for name in names}
    for entry in slides:
        shard = shard_name(number, entry["part"], pixels=settings.pixels)
        for scale in entry["scales"]:
            count, columns = scale["tiles"], scale["columns"]
            parts["slide"] += [entry["slide"]] * count
            parts["shard"] += [shard] * count
            parts["image"] += range(scale["first"], scale["first"] + count)
            parts["mpp"] += [scale["mpp"]] * count
            parts["side"] += [scale["side"]] * count
            for name in (*_KINDS, *_QUALITY):
                parts[name] += columns[name]
    kinds = {"slide": text, "shard": text, "image": pa.int32(), "mpp": pa.float32()}
    kinds |= {"side": pa.float64(), **{name: getattr(pa, kind)() for name, kind in _KINDS.items()}}
    arrays = [pa.array(parts[name], kinds.get(name, pa.float32())) for name in names]
    table = pa.Table.from_arrays(arrays, names=names)
    with whole_file(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")
