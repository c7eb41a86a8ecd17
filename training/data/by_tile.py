"""A corpus with an entry per tile: tar shards with manifest.csv, or a folder of images.

Memory grows with the number of tiles.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.tables import Table, read_table
from pathencoder.walk import printable, walk
from training.data.content import content_of
from training.data.contents import contents_of
from training.data.keys import Keys
from training.data.manifest import (
    STAIN_CLASSES,
    Rows,
    Wanted,
    digest_of,
    normalise_shard_names,
    read_rows,
    warn_of_differences,
)
from training.data.open_files import Place
from training.data.sources import Folder
from training.data.tar import members_of, why_no_tile
from training.data.tiles import Corpus, Parts
from training.data.values import name_of

log = logging.getLogger(__name__)

_NAMED = 5  # examples in a message


@dataclass(frozen=True)
class RowTiles:
    """The key and the place of every tile.

    Attributes:
        keys: Their names.
        places: Their files, or ranges of shards.
    """

    keys: list[str]
    places: list[Place]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """The name of a tile."""
        return self.keys[index]

    def place(self, index: int) -> Place:
        """Where the bytes of a tile are."""
        return self.places[index]

    def parts(self) -> Parts | None:
        """Runs of tiles of one slide and shard; None for a folder of images."""
        if not self.places or self.places[0].size < 0:
            return None
        numbers: dict[Path | str, int] = {}
        shard = np.array([numbers.setdefault(p.file, len(numbers)) for p in self.places])
        cut = np.flatnonzero(np.append(True, shard[1:] != shard[:-1]))
        return Parts(np.append(cut, len(shard)), shard[cut])

    def content(self) -> str:
        """sha256 of names, sizes and samples of the bytes."""
        return content_of(self.keys, self.places)


@dataclass(frozen=True)
class _Row:
    key: str
    place: Place
    slide: str
    stain: int = STAIN_CLASSES.index("unknown")
    organ: str = "unknown"
    licence: str = ""
    mpp: float = math.nan


def read_shards(root: Path, source: Folder, wanted: Wanted) -> Corpus | None:
    """Read the requested rows of a manifest whose images exist.

    Args:
        root: A folder with manifest.csv.
        source: The same folder.
        wanted: Which rows.

    Returns:
        The corpus; None when no row is left.

    Raises:
        ConfigError: The manifest lacks a column or has an unknown value (see read_rows), a row has
            no shard or key, two rows name one image, or a key could mean two images.
    """
    table = read_table(root / "manifest.csv", required=("shard", "key"))
    normalise_shard_names(table)
    rows = read_rows(table, wanted)
    places = _places(table, rows, root)
    keys = _unique_keys(table, [i for i in places if rows.used[i]])
    slides = {i: name_of(table.rows[i].get("slide", "")) for i in keys}
    if nameless := sum(not name for name in slides.values()):
        log.warning(
            "%s: %d tiles have no slide: each is treated as a separate slide", table.file, nameless
        )
    named = [i for i in keys if slides[i]]
    _warn_of_differences(table, rows, named)
    return _corpus(
        [
            _Row(
                key,
                places[i],
                slides[i] or key,
                rows.stains[i],
                rows.organs[i],
                rows.licences[i],
                rows.mpp[i],
            )
            for i, key in keys.items()
        ],
        source,
    )


def _warn_of_differences(table: Table, rows: Rows, chosen: Sequence[int]) -> None:
    names = [table.rows[i]["slide"] for i in chosen]
    patients = [name_of(table.rows[i].get("patient", "")) for i in chosen]
    warn_of_differences(names, patients, "patients", table.file)
    warn_of_differences(names, [rows.organs[i] for i in chosen], "organs", table.file)
    warn_of_differences(
        names, [STAIN_CLASSES[rows.stains[i]] for i in chosen], "stain classes", table.file
    )


def _places(table: Table, rows: Rows, root: Path) -> dict[int, Place]:
    """Row -> its image, for all rows whose image exists, in the order of the rows."""
    by_shard: dict[str, dict[str, int]] = {}
    twice: dict[str, tuple[int, int]] = {}
    for i, row in enumerate(table.rows):
        if not row["shard"] or not row["key"]:
            raise ConfigError(f"{table.where(i)}: every row needs a shard and a key")
        before = by_shard.setdefault(row["shard"], {}).setdefault(row["key"], i)
        if before != i:
            twice.setdefault(row["shard"], (before, i))
    left_out = Counter[str]()
    found: dict[int, Place] = {}
    for name, keys in sorted(by_shard.items()):
        if not os.path.isfile(root / name):  # also for names that no file system allows
            log.warning("shard %s of the manifest is missing", root / name)
            _log_lost(table, rows, root / name, keys.values())
        else:
            found |= _in_shard(table, rows, root / name, keys, left_out)
        if name in twice:
            raise _two_rows(table, *twice[name])
    if left_out:
        log.info("members of the shards that are no tiles: %s", _listed(left_out))
    return {i: found[i] for i in sorted(found)}


def _in_shard(
    table: Table, rows: Rows, shard: Path, keys: Mapping[str, int], left_out: Counter[str]
) -> dict[int, Place]:
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
            rows.used[before] != rows.used[row] or index[table.rows[before]["key"]] == member
        ):
            raise _two_rows(table, before, row)
        found[row] = Place(shard, offset, size)
    _log_lost(table, rows, shard, [i for i in keys.values() if i not in found])
    return found


def _two_rows(table: Table, one: int, other: int) -> ConfigError:
    one, other = sorted((one, other))
    a, b = (table.rows[i] for i in (one, other))
    return ConfigError(
        f"{table.where(one)} and line {table.lines[other]} name one image of {a['shard']} "
        f"({a['key']!r} and {b['key']!r}). Remove one of the rows"
    )


def _log_lost(table: Table, rows: Rows, shard: Path, lost: Iterable[int]) -> None:
    """Log the rows that would be used and have no image."""
    wanted = [i for i in lost if rows.used[i]]
    if wanted:
        named = ", ".join(
            f"{table.rows[i]['key']} (line {table.lines[i]})" for i in wanted[:_NAMED]
        )
        log.warning(
            "skipped: %d tiles of the manifest are not in shard %s: %s ...",
            len(wanted),
            shard,
            named,
        )


def _unique_keys(table: Table, chosen: Sequence[int]) -> dict[int, str]:
    """Row -> a unique key: the manifest's, or SHARD/KEY where shards have keys in common."""
    keys = [table.rows[i]["key"] for i in chosen]
    if len(set(keys)) < len(keys):
        log.info("%s: shards have keys in common: tiles are named SHARD/KEY", table.file)
        keys = [f"{table.rows[i]['shard']}/{key}" for i, key in zip(chosen, keys, strict=True)]
    return dict(zip(chosen, keys, strict=True))


def read_folder(root: Path, wanted: Wanted) -> Corpus | None:
    """Read every image in a folder that `encode` accepts; its parent folder is its slide.

    Args:
        root: The folder. Links are followed, hidden files and folders are left out.
        wanted: Must ask for all: without a table, nothing is known of the images.

    Returns:
        The corpus; None when there is no image.

    Raises:
        ConfigError: A filter was asked for.
    """
    wanted.refuse(root)
    found = walk(root)
    left_out = Counter({"hidden": found.hidden} if found.hidden else {})
    for entry in found.left_out:
        log.warning("left out: %s: %s", printable(entry.path), entry.reason)
    rows = []
    for file in found.files:
        path = file.relative_to(root)
        if reason := why_no_tile(path.as_posix()):
            left_out[reason] += 1
        else:
            rows.append(
                _Row(printable(path.as_posix()), Place(file), printable(path.parent.as_posix()))
            )
    if not rows:
        left_out.pop("no image (.tar)", None)  # without images, the tars are read
    if left_out:
        log.info("left out of %s: %s", root, _listed(left_out))
    return _corpus(rows, Folder(root))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in counts.most_common())


def _corpus(rows: list[_Row], source: Folder) -> Corpus | None:
    if not rows:
        return None
    rows.sort(key=lambda r: (r.slide, r.key))
    slides, first = np.unique([r.slide for r in rows], return_index=True)
    stains = np.array([r.stain for r in rows], dtype=np.int8)
    organs, organ_of = np.unique([rows[i].organ for i in first], return_inverse=True)
    return Corpus(
        tiles=RowTiles([r.key for r in rows], [r.place for r in rows]),
        slide_names=slides.tolist(),
        slide_starts=np.append(first, len(rows)).astype(np.int64),
        slide_stains=stains[first],
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest_of([r.key for r in rows]),
        contents=contents_of(
            [r.slide for r in rows],
            [r.licence for r in rows],
            [STAIN_CLASSES[r.stain] for r in rows],
            [r.mpp for r in rows],
        ),
        source=source,
        tile_stains=stains,
    )
