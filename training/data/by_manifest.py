"""A corpus of tar shards with manifest.csv, a row for each tile.

Tables and places are kept by columns: some hundred bytes for a tile.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from training.data.by_tile import Facts, Ranges, RowTiles, corpus_of, listed
from training.data.columns import Columns, Texts, digest_of_texts, read_columns
from training.data.keys import Keys
from training.data.manifest import (
    STAIN_CLASSES,
    Rows,
    Wanted,
    normalise_shard_names,
    read_rows,
    warn_of_differences,
)
from training.data.sources import Folder
from training.data.tar import members_of
from training.data.tiles import Corpus
from training.data.values import name_of

log = logging.getLogger(__name__)

_NAMED = 5  # examples in a message


def read(file: Path, source: Folder, wanted: Wanted) -> Corpus | None:
    """Read the requested rows of a manifest whose images exist.

    Args:
        file: manifest.csv.
        source: The folder of the shards.
        wanted: Which rows.

    Returns:
        The corpus; None when no row is left.

    Raises:
        ConfigError: The manifest lacks a column or has an unknown value (see read_rows), a row has
            no shard or key, two rows name one image, or a key could mean two images.
    """
    table = read_columns(file, required=("shard", "key"), blocks=("key",))
    normalise_shard_names(table)
    rows = read_rows(table, wanted)
    offset, size = _places(table, rows, source.root)
    chosen = np.flatnonzero(np.array(rows.used, dtype=bool) & (size >= 0))
    if not len(chosen):
        return None
    keys = _unique_keys(table, chosen)
    padded = keys.padded()
    slides, slide_of = _slides(table, rows, chosen, keys)
    order = np.lexsort((padded, slide_of))
    digest = digest_of_texts(padded)
    del padded
    chosen, slide_of, keys = chosen[order], slide_of[order], Texts.of(keys.take(order))
    files = [str(source.place(name)) for name in table.values["shard"]]
    ranges = Ranges(files, table.codes["shard"][chosen], offset[chosen], size[chosen])
    of = chosen.tolist()
    facts = Facts(
        slides,
        slide_of,
        np.array(rows.stains, np.int8)[chosen],
        [rows.organs[i] for i in of],
        [rows.licences[i] for i in of],
        [rows.mpp[i] for i in of],
    )
    return corpus_of(RowTiles(keys, ranges), facts, digest, source)


def _slides(
    table: Columns, rows: Rows, chosen: np.ndarray, keys: Texts
) -> tuple[list[str], np.ndarray]:
    """The names of the slides, sorted, and the index of that of each row."""
    texts, codes = [""], np.zeros(len(chosen), np.int64)
    if "slide" in table.columns:
        texts, codes = table.values["slide"], table.codes["slide"][chosen].astype(np.int64)
    names = [name_of(text) for text in texts]
    nameless = np.array([not name for name in names])[codes]
    _warn_of_differences(table, rows, chosen[~nameless])
    if nameless.any():
        log.warning(
            "%s: %d tiles have no slide: each is treated as a separate slide",
            table.file,
            int(nameless.sum()),
        )
        at = np.flatnonzero(nameless)
        codes[at] = len(names) + np.arange(len(at))
        names += keys.take(at)
    used = sorted({names[code] for code in np.unique(codes).tolist()})
    rank = {name: i for i, name in enumerate(used)}
    return used, np.array([rank.get(name, -1) for name in names])[codes]


def _warn_of_differences(table: Columns, rows: Rows, chosen: np.ndarray) -> None:
    if not len(chosen):
        return
    of = chosen.tolist()
    names = table.some("slide", chosen)
    patients = [name_of(text) for text in table.some("patient", chosen)]
    warn_of_differences(names, patients, "patients", table.file)
    warn_of_differences(names, [rows.organs[i] for i in of], "organs", table.file)
    stains = [STAIN_CLASSES[rows.stains[i]] for i in of]
    warn_of_differences(names, stains, "stain classes", table.file)


def _places(table: Columns, rows: Rows, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """int64 [rows]: offset and size of the image of each row; size -1 where there is none."""
    _refuse_empty(table)
    offset, size = np.zeros(len(table), np.int64), np.full(len(table), -1, np.int64)
    codes, names = table.codes["shard"], table.values["shard"]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    left_out = Counter[str]()
    for code in sorted(range(len(names)), key=names.__getitem__):
        shard, of = root / names[code], order[starts[code] : starts[code + 1]]
        keys: dict[str, int] = {}
        twice = None
        for row, key in zip(of.tolist(), table.blocks["key"].take(of), strict=True):
            before = keys.setdefault(key, row)
            if before != row:
                twice = twice or (before, row)
        if not os.path.isfile(shard):  # also for names that no file system allows
            log.warning("shard %s of the manifest is missing", shard)
            _log_lost(table, rows, shard, keys.values())
        else:
            found = _in_shard(table, rows, shard, keys, left_out)
            at = np.fromiter(found, np.int64, len(found))
            ranges = np.array(list(found.values()), np.int64).reshape(-1, 2)
            offset[at], size[at] = ranges[:, 0], ranges[:, 1]
        if twice:
            raise _two_rows(table, *twice)
    if left_out:
        log.info("members of the shards that are no tiles: %s", listed(left_out))
    return offset, size


def _refuse_empty(table: Columns) -> None:
    named = np.array([bool(name) for name in table.values["shard"]], bool)
    empty = (table.blocks["key"].lengths() == 0) | ~named[table.codes["shard"]]
    if empty.any():
        where = table.where(int(np.argmax(empty)))
        raise ConfigError(f"{where}: every row needs a shard and a key")


def _in_shard(
    table: Columns, rows: Rows, shard: Path, keys: Mapping[str, int], left_out: Counter[str]
) -> dict[int, tuple[int, int]]:
    """Row -> offset and size of its image."""
    members = members_of(shard)
    left_out.update(members.left_out)
    if members.damage:
        log.warning(
            "shard %s %s: its first %d tiles are whole", shard, members.damage, len(members.names)
        )
    index = Keys(members.names, lambda key: table.where(keys[key])).find(keys)
    owners: dict[int, int] = {}  # offset -> row
    found = {}
    for key, member in index.items():
        row, (offset, size) = keys[key], members.ranges[member].tolist()
        before = owners.setdefault(offset, row)
        # Two links to the same bytes are two tiles, unless one of them must not be used.
        if before != row and (
            rows.used[before] != rows.used[row] or index[table.get(before, "key")] == member
        ):
            raise _two_rows(table, before, row)
        found[row] = (offset, size)
    _log_lost(table, rows, shard, [i for i in keys.values() if i not in found])
    return found


def _two_rows(table: Columns, one: int, other: int) -> ConfigError:
    one, other = sorted((one, other))
    return ConfigError(
        f"{table.where(one)} and line {table.lines[other]} name one image of"
        f" {table.get(one, 'shard')} ({table.get(one, 'key')!r} and {table.get(other, 'key')!r})."
        " Remove one of the rows"
    )


def _log_lost(table: Columns, rows: Rows, shard: Path, lost: Iterable[int]) -> None:
    """Log the rows that would be used and have no image."""
    wanted = [i for i in lost if rows.used[i]]
    if wanted:
        named = ", ".join(f"{table.get(i, 'key')} (line {table.lines[i]})" for i in wanted[:_NAMED])
        log.warning(
            "skipped: %d tiles of the manifest are not in shard %s: %s ...",
            len(wanted),
            shard,
            named,
        )


def _unique_keys(table: Columns, chosen: np.ndarray) -> Texts:
    """Unique keys: the manifest's, or SHARD/KEY where shards have keys in common."""
    keys = Texts.of(table.blocks["key"].take(chosen))
    in_order = np.sort(keys.padded())
    if not (in_order[1:] == in_order[:-1]).any():
        return keys
    log.info("%s: shards have keys in common: tiles are named SHARD/KEY", table.file)
    shards = table.some("shard", chosen)
    return Texts.of(f"{shard}/{key}" for shard, key in zip(shards, keys, strict=True))
