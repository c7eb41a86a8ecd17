"""A table with a row a slide, and the feature file of each slide."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder import tables
from pathencoder.errors import ConfigError
from pathencoder.features.containers import feature_files, is_zarr
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, READERS, TIFF_SUFFIXES
from pathencoder.heads.data.dataset import Dataset, split_names
from pathencoder.heads.data.table import column, group_notes, known_groups, optional_column
from pathencoder.walk import expanded, printable

# as CLAM (slide_id, case_id), STAMP (FILENAME, PATIENT) and TRIDENT (wsi) name them
_SLIDES = ("slide", "slide_id", "filename", "file", "wsi", "image", "path")
_LABELS = ("label", "class", "target")
_GROUPS = ("group", "patient", "patient_id", "case", "case_id")
_SPLITS = ("split", "fold")
EVENT, CENSORED = "event", "censored"
_OUTCOMES = {"1": EVENT, "true": EVENT, "yes": EVENT, "0": CENSORED, "false": CENSORED}
_OUTCOMES |= {"no": CENSORED, "1.0": EVENT, "0.0": CENSORED}
_SUFFIXES = (".h5", ".h5ad")
# that a table may name a slide with; what else follows a dot is part of the name
_NAMED_WITH = frozenset(READERS) | FOREIGN_SUFFIXES | TIFF_SUFFIXES | {*_SUFFIXES, ".zarr", ".pt"}


@dataclass(frozen=True)
class Slides:
    """A table of slides, before their features are read.

    Attributes:
        data: A row a slide: `images` are the feature files; "" where there is none.
        missing: Why a slide has no feature file, by row.
        times: For survival: float64 [N]; the labels are then `EVENT` and `CENSORED`.
        bad_times: What is wrong with times and events, a sentence each.
    """

    data: Dataset
    missing: dict[int, str]
    times: NDArray[np.float64] | None = None
    bad_times: tuple[str, ...] = ()


@dataclass(frozen=True)
class Columns:
    """The columns of a table of slides.

    Attributes:
        label: Of the classes. None: "label", "class" or "target".
        group: Of the patients. None: "group", "patient" and similar, where there is one.
        split: Of the parts. None: "split" or "fold", where there is one.
        time: Of the times to the event or to the last observation; None: classes are predicted.
        event: Of whether there was an event.
    """

    label: str | None = None
    group: str | None = None
    split: str | None = None
    time: str | None = None
    event: str | None = None


def read_slides(
    table: str | os.PathLike[str], features: str | os.PathLike[str] | None, columns: Columns
) -> Slides:
    """Read a table of slides and find the feature file of each.

    Args:
        table: A CSV with the columns slide and label and, optionally, group (or patient, case) and
            split. A slide is named by its file name, with or without suffix, or by its feature file
            relative to `features`.
        features: The folder of the feature files.
        columns: Which columns hold what.

    Raises:
        ConfigError: The table or the folder cannot be read, or the table lacks a column.
    """
    file, folder = _file(table), _folder(features)
    read = tables.read_table(file)
    slides = column(read, None, _SLIDES, "slide")
    survival = columns.time is not None
    labels = "" if survival else column(read, columns.label, _LABELS, "label")
    groups = known_groups(read, columns.group, _GROUPS)
    splits = optional_column(read, columns.split, _SPLITS)
    found, missing = find_features(folder, [row[slides] for row in read.rows])
    where = tuple(
        printable(f"{file.name}, line {line} ({row[slides] or 'no slide'})")
        for line, row in zip(read.lines, read.rows, strict=True)
    )
    times, outcomes, bad = _survival(read, columns, where) if survival else (None, (), ())
    data = Dataset(
        images=tuple(found),
        labels=outcomes if survival else tuple(row[labels] for row in read.rows),
        groups=None if groups is None else tuple(row[groups] for row in read.rows),
        splits=None if splits is None else split_names(row[splits] for row in read.rows),
        where=where,
        notes=group_notes(read, columns.group, groups, _GROUPS),
        unit="slides",
    )
    return Slides(data, missing, times, bad)


def _survival(
    read: tables.Table, columns: Columns, where: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...], tuple[str, ...]]:
    """The times, the events as labels, and what is wrong with them."""
    time = column(read, columns.time, (), "time")
    event = column(read, columns.event, (), "event")
    times, labels, bad = [], [], []
    for name, row in zip(where, read.rows, strict=True):
        try:
            value = tables.number(row[time], read.delimiter)
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            bad.append(f"{name}: the time is {row[time]!r}: a number above 0 is needed")
        outcome = _OUTCOMES.get(row[event].casefold())
        if outcome is None:
            bad.append(f"{name}: the event is {row[event]!r}: 1 (event) or 0 (last observation)")
        times.append(value)
        labels.append(outcome or CENSORED)
    return np.array(times, np.float64), tuple(labels), tuple(bad)


def find_features(folder: Path, slides: Sequence[str]) -> tuple[list[Path], dict[int, str]]:
    """The feature file of each slide.

    Args:
        folder: Of the feature files.
        slides: Names of slides: "S1.svs", "S1", or a feature file relative to the folder.

    Returns:
        The files, `Path()` where there is none; and why there is none, by the number of the slide.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in feature_files(folder):
        by_stem[path.stem].append(path)
    found, missing, first = list[Path](), dict[int, str](), dict[Path, int]()
    for number, slide in enumerate(slides):
        files = _files_of(slide, folder, by_stem)
        found.append(files[0] if len(files) == 1 else Path())
        if not slide:
            missing[number] = "no slide is named"
        elif not files:
            missing[number] = f"no feature file of this name in {printable(folder)}"
        elif len(files) > 1:
            names = " and ".join(printable(file.relative_to(folder)) for file in files)
            missing[number] = f"several feature files, {names}: keep one"
        elif first.setdefault(files[0], number) != number:
            missing[number] = "the slide is in the table twice: keep one row"
    return found, missing


def _files_of(slide: str, folder: Path, by_stem: dict[str, list[Path]]) -> list[Path]:
    """The feature files of a slide; a name of a slide may hold dots."""
    if not slide:
        return []
    direct = folder / slide
    if (direct.is_file() and direct.suffix.lower() in _SUFFIXES) or is_zarr(direct):
        return [direct]
    name = Path(slide.replace("\\", "/")).name
    known = Path(name).suffix.lower() in _NAMED_WITH
    stem = Path(name).stem if known else name
    for candidate in (name, stem, stem.removesuffix(".ome")):
        if candidate in by_stem:
            return by_stem[candidate]
    return []


def _file(table: str | os.PathLike[str]) -> Path:
    path = expanded(table)
    if not path.is_file():
        raise ConfigError(f"no such table: {printable(path)}")
    return path


def _folder(features: str | os.PathLike[str] | None) -> Path:
    if features is None:
        raise ConfigError(
            "a slide head is fitted on feature files: name their folder, features='features/'"
            " (--features). `pathencoder encode slides/ --out features` writes them"
        )
    path = expanded(features)
    if not path.is_dir():
        raise ConfigError(f"features={printable(path)}: no such folder")
    return path
