"""The sets of an evaluation: the known ones that are there, and others that have a labels.csv.

A set that cannot be read is left out with its reason; the others are measured.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.files import make_folder
from pathencoder.tables import read_table
from training.evaluation import dense
from training.evaluation.annotations import Picture, read_pictures
from training.evaluation.cells import cut_cells
from training.evaluation.dense import DenseSet
from training.evaluation.known_sets import BY_NAME, CELL_SETS, KNOWN, TILE_SETS, KnownSet
from training.evaluation.probe import Labels, part_of, read_labels
from training.evaluation.report_rows import Absent, SetRow, Stain, Verb
from training.evaluation.set_lists import (
    Entry,
    differences,
    digest,
    entries_of,
    folder_of,
    how_to_obtain,
)
from training.evaluation.sets import ProbeSet

log = logging.getLogger("training")
LABELS = "labels.csv"
_SMALL = (
    "a small sample of a larger public set: figures compare encoders on the same images and are not"
    " the published benchmark of this name"
)
_NO_GROUPS = (
    "the table has no groups (patients, slides): tiles of one patient may be in train and in the"
    " evaluated part, and the interval is over tiles: figures are too good and too certain"
)


@dataclass(frozen=True)
class MeasuredSet:
    """A set that is measured.

    Attributes:
        row: Of the report.
        probe: Its tiles; None: dense figures alone.
        dense: Its dense labels; None: none.
        pictures: The images of `dense`.
        centres: The centre of each tile; None: not known.
        in_means: It counts in the means over sets.
    """

    row: SetRow
    probe: ProbeSet | None
    dense: DenseSet | None = None
    pictures: tuple[Picture, ...] = ()
    centres: NDArray[np.str_] | None = None
    in_means: bool = True

    @property
    def key(self) -> str:
        """Its name and the beginning of the hash of its content, for files of the cache."""
        return f"{self.row.name}@{self.row.sha256[:12]}"


@dataclass(frozen=True)
class Opened:
    """What was found.

    Attributes:
        sets: The sets.
        absent: Sets without figures, and why.
        broken: The names of those that are there and cannot be measured.
    """

    sets: list[MeasuredSet]
    absent: list[Absent]
    broken: list[str]


def open_all(data: Path, chosen: Sequence[str], cache: Path) -> Opened:
    """Open the sets of an evaluation.

    Args:
        data: Folder of the sets.
        chosen: Names of known sets, and folders of others; empty: all known ones, and every other
            folder of `data` and `data`/tiles with a labels.csv.
        cache: Folder in which cut cells are kept.

    Returns:
        The sets; those that are not there or not valid, with the reason.

    Raises:
        ConfigError: None of them is there, or a chosen name is neither a known set nor a folder.
    """
    names, folders = _wanted(data, chosen)
    found = Opened([], [], [])
    for name in names:
        known = BY_NAME[name]
        folder = folder_of(known, data)
        verb: Verb = "probe" if name in (*TILE_SETS, *CELL_SETS) else "dense"
        if folder is None:
            found.absent.append(Absent(set=name, verb=verb, reason=how_to_obtain(known, data)))
            continue
        _open_one(found, name, verb, functools.partial(_known, known, folder, cache))
    for folder in folders:
        _open_one(found, folder.name, "probe", functools.partial(_own, folder))
    if not found.sets:
        reasons = "\n".join(f"  {a.reason}" for a in found.absent)
        raise ConfigError(
            f"no set to evaluate on in {data}:\n{reasons}\nAnother folder: --data; a set of your"
            " own is a folder with a labels.csv (docs/evaluation.md)"
        )
    return found


def _wanted(data: Path, chosen: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Names of known sets, and folders of others."""
    if not chosen:
        tables = [
            data / LABELS,
            *sorted(data.glob(f"*/{LABELS}")),
            *sorted(data.glob(f"tiles/*/{LABELS}")),
        ]
        others = [t.parent for t in tables if t.is_file() and t.parent.name not in BY_NAME]
        return [s.name for s in KNOWN], others
    names, folders = [], []
    for name in dict.fromkeys(chosen):
        place = Path(name)
        if name in BY_NAME:
            names.append(name)
        elif (place / LABELS).is_file() or (place.name == LABELS and place.is_file()):
            folders.append(place if place.is_dir() else place.parent)
        else:
            raise ConfigError(
                f"--sets: {name!r} is neither a folder with a {LABELS} nor one of"
                f" {', '.join(BY_NAME)}"
            )
    return names, folders


def _open_one(
    found: Opened, name: str, verb: Verb, opening: Callable[[], list[MeasuredSet]]
) -> None:
    try:
        found.sets.extend(opening())
    except PathEncoderError as error:
        log.warning("%s is left out: %s", name, error)
        found.absent.append(Absent(set=name, verb=verb, reason=str(error)))
        found.broken.append(name)


def _known(known: KnownSet, folder: Path, cache: Path) -> list[MeasuredSet]:
    entries = entries_of(folder / known.table)
    row = SetRow(
        name=known.name,
        title=known.title,
        stain=known.stain,
        groups=known.groups,
        sha256=digest(entries),
        licence=known.licence,
        homepage=known.homepage,
        small=True,
        notes=(_SMALL, *known.notes, *filter(None, [differences(known.name, entries)])),
    )
    tiles = _tiles(known, folder, cache, row.sha256)
    centres = None
    if tiles and known.centre:
        centres = np.array([known.centre(group) for group in tiles.labels.groups.tolist()])
    dense_set = next((s for s in dense.SETS if s.name == known.name), None) if known.dense else None
    pictures: tuple[Picture, ...] = ()
    if dense_set:
        parts = ("train", dense_set.test)
        pictures = tuple(read_pictures(folder, parts, dense_set.mpp))
    return [MeasuredSet(row, tiles, dense_set, pictures, centres, known.in_means)]


def _tiles(known: KnownSet, folder: Path, cache: Path, sha256: str) -> ProbeSet | None:
    if known.table == LABELS:
        return _probe_set(known.name, folder)
    if known.cells is None:
        return None
    cut = make_folder(cache / "cells") / f"{known.name}-{sha256[:12]}"
    if not (cut / LABELS).is_file():
        cut_cells(folder, known.cells, cut)
    return _probe_set(known.name, cut)


def _probe_set(name: str, folder: Path) -> ProbeSet:
    table = folder / LABELS
    labels = read_labels(table)
    part = part_of(labels)
    _check(table, labels, part)
    return ProbeSet(name, folder, labels, part, choose=False)


def _check(table: Path, labels: Labels, part: str | None) -> None:
    fitted = labels.y[labels.split == "train"] if part else labels.y
    classes = sorted({labels.names[c] for c in fitted.tolist()})
    where = "rows of train are" if part else "rows are"
    if len(classes) < 2:
        raise ConfigError(f"{table}: all {where} {classes}; a probe needs two classes")
    if part is None and len(set(labels.groups.tolist())) < 2:
        raise ConfigError(f"{table}: all rows are of one group; folds by group need two or more")


def _own(folder: Path) -> list[MeasuredSet]:
    """A set of one's own; one for each stain where the column `stain` has several."""
    table = read_table(folder / LABELS, ("file", "label"))
    missing = [r["file"] for r in table.rows if not (folder / r["file"]).is_file()]
    if missing:
        raise ConfigError(
            f"{table.file}: {len(missing):,} of {len(table.rows):,} files are missing, the first is"
            f" {missing[0]!r}. Restore them, or remove their rows"
        )
    whole, entries = _probe_set(folder.name, folder), entries_of(folder / LABELS)
    # rows of the table are in the order of the labels
    stains = np.array([_stain(r.get("stain", ""), table.file) for r in table.rows])
    centres = np.array([r.get("centre", "") for r in table.rows])
    several = len(set(stains.tolist())) > 1
    sets = []
    for stain in dict.fromkeys(stains.tolist()):
        kept = np.flatnonzero(stains == stain)
        name = f"{folder.name}-{stain}" if several else folder.name
        labels = _some(whole.labels, kept)
        part = part_of(labels)
        _check(table.file, labels, part)
        known = all(centres[kept].tolist())
        sets.append(
            MeasuredSet(
                _own_row(name, stain, table.columns, _entries_at(entries, labels)),
                ProbeSet(name, folder, labels, part, choose=False),
                centres=centres[kept] if known else None,
            )
        )
    return sets


def _own_row(name: str, stain: Stain, columns: Sequence[str], entries: list[Entry]) -> SetRow:
    grouped = "group" in columns
    notes = [] if grouped else [_NO_GROUPS]
    if "stain" not in columns:
        notes.append("the table has no column stain: taken as H&E")
    return SetRow(
        name=name,
        title=name,
        stain=stain,
        groups="group" if grouped else "image",
        sha256=digest(entries),
        notes=tuple(notes),
    )


def _stain(text: str, table: Path) -> Stain:
    name = text.strip().casefold() or "he"
    name = "he" if name in ("h&e", "he", "hes") else name
    allowed: tuple[Stain, ...] = get_args(Stain)
    for one in allowed:
        if one == name:
            return one
    raise ConfigError(f"{table}: the stain {text!r} is none of {', '.join(allowed)}")


def _some(labels: Labels, kept: NDArray[np.int64]) -> Labels:
    """Rows of labels, with the classes that occur in them."""
    there = sorted(set(labels.y[kept].tolist()))
    return Labels(
        [labels.files[i] for i in kept],
        np.array([there.index(c) for c in labels.y[kept].tolist()]),
        labels.groups[kept],
        labels.split[kept],
        [labels.names[c] for c in there],
    )


def _entries_at(entries: Sequence[Entry], labels: Labels) -> list[Entry]:
    files = set(labels.files)
    return [dataclasses.replace(e) for e in entries if e.file in files]
