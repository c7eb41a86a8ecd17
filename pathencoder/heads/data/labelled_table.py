"""A table (CSV) of images and the files of their labels, or of points of many images."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError, MissingMpp
from pathencoder.heads.data import point_tables
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.data.listing import (
    LABEL_SUFFIXES,
    Found,
    Listing,
    NoLabels,
    preferred,
    source_of,
)
from pathencoder.heads.data.marks import Source
from pathencoder.heads.data.pairs import is_of_images, sort_files
from pathencoder.heads.data.scales import stated_scale
from pathencoder.heads.data.table import (
    GROUPS,
    PATHS,
    SPLITS,
    column,
    group_notes,
    known_groups,
    optional_column,
)
from pathencoder.heads.data.truth import Kind
from pathencoder.images import SUFFIXES as IMAGES
from pathencoder.tables import Table, read_table
from pathencoder.walk import expanded, printable, walk

_LABELS = (
    *("labels", "label", "mask", "labels_path", "label_path", "mask_path"),
    *("annotation", "annotations", "points"),
)
_MPP = ("mpp", "mpp_x", "um_per_px", "microns_per_pixel", "pixel_size_um")


@dataclass(frozen=True)
class Names:
    """Names of columns that the user gave; None: not given."""

    labels: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class _Columns:
    """The columns of a table; None where it has none."""

    image: str
    labels: str | None
    group: str | None
    split: str | None
    mpp: str | None

    @classmethod
    def of(cls, table: Table, given: Names) -> _Columns:
        return cls(
            column(table, None, ("image", *PATHS), "image"),
            optional_column(table, given.labels, _LABELS),
            known_groups(table, given.group, GROUPS),
            optional_column(table, given.split, SPLITS),
            optional_column(table, None, _MPP),
        )


def read_labelled_table(file: Path, kind: Kind, given: Names) -> Listing:
    """List a table with a row an image, or with a row a point.

    Paths are relative to the folder of the table. Without a column of labels, they are looked for
    beside the images, as in a folder. A table with x and y has a row a point: images are looked for
    by their names below its folder.

    Args:
        file: The table. Columns: image (or path, file, filename); labels (or mask, points), group,
            split, mpp and stain, all optional; or x and y (also x_um, "Centroid X µm") and class.
        kind: What the task learns.
        given: Columns of other names.

    Returns:
        The images.

    Raises:
        ConfigError: The table cannot be read, lacks a column, or has an empty path.
    """
    table = read_table(file)
    columns = _Columns.of(table, given)
    empty = [table.where(i) for i, row in enumerate(table.rows) if not row[columns.image]]
    if empty:
        raise ConfigError(f"{empty[0]}: the column {columns.image!r} is empty ({len(empty)} rows)")
    axes = None if _names_files(table, columns.labels) else point_tables.columns_of(table)
    notes = group_notes(table, given.group, columns.group)
    if axes is None:
        return Listing(_images(table, columns, kind), notes)
    return _points(table, columns, axes, kind, notes)


def _names_files(table: Table, labels: str | None) -> bool:
    """Whether a column names files of labels; "label" may also be the class of a point."""
    values = [row[labels] for row in table.rows] if labels is not None else []
    return any(Path(value).suffix.lower() in LABEL_SUFFIXES for value in values)


def _images(table: Table, columns: _Columns, kind: Kind) -> list[Found]:
    """A row an image."""
    beside = _beside(table.file.parent, kind) if columns.labels is None else None
    rows = []
    for i, row in enumerate(table.rows):
        image = table.file.parent / expanded(row[columns.image])
        if columns.labels is None:
            file = beside(image) if beside else None
        else:
            text = row[columns.labels]
            file = table.file.parent / expanded(text) if text else None
        source = _none(table, i, columns) if file is None else source_of(file, kind)
        rows.append(_found(table, [i], image, source, columns))
    return rows


def _points(
    table: Table,
    columns: _Columns,
    axes: point_tables.Columns,
    kind: Kind,
    notes: tuple[str, ...],
) -> Listing:
    """A row a point."""
    if kind != "points":
        raise ConfigError(
            f"{printable(table.file)}: a table of points, but the task needs outlines or label maps"
        )
    find = _finder(table.file.parent)
    sources = point_tables.by_image(table, columns.image, axes)
    listed = [
        _found(table, source.rows, find(name), source, columns) for name, source in sources.items()
    ]
    problems = [p for source in sources.values() for p in _contradictions(table, source, columns)]
    return Listing(listed, notes, tuple(problems))


def _contradictions(
    table: Table, source: point_tables.PointRows, columns: _Columns
) -> Iterator[str]:
    """Say so where the rows of one image differ in what an image has one of."""
    stated = (
        ("part", columns.split, split_name),
        ("group", columns.group, str),
        ("mpp", columns.mpp, _scale),
        ("stain", "stain" if "stain" in table.columns else None, str.casefold),
    )
    for what, name, meaning in stated:
        first: int | None = None
        for row in source.rows if name is not None else ():
            text = table.rows[row][name or ""]
            if not text:
                continue
            first = row if first is None else first
            before = table.rows[first][name or ""]
            if meaning(text) != meaning(before):
                yield (
                    f"{printable(table.where(row))}: the {what} is {text!r}, in line"
                    f" {table.lines[first]} of the same image {before!r}: give each image one"
                )
                break


def _scale(text: str) -> float | str | None:
    try:
        return stated_scale(text)
    except (ConfigError, MissingMpp):  # the check of scales says so
        return text


def _none(table: Table, row: int, columns: _Columns) -> NoLabels:
    where = printable(table.where(row))
    if columns.labels is not None:
        return NoLabels(where, f"the column {columns.labels!r} is empty: name the file of labels")
    return NoLabels(
        where,
        "no labels beside the image: give a column 'labels' with their files, or put them beside it"
        " as NAME_mask.png, NAME.geojson or NAME.csv",
    )


def _found(
    table: Table, rows: Sequence[int], image: Path, source: Source, columns: _Columns
) -> Found:
    def stated(column: str | None) -> str:
        values = (table.rows[row].get(column or "", "") for row in rows)
        return next((value for value in values if value), "")

    return Found(
        image=image,
        labels=source,
        where=printable(table.where(rows[0])),
        split=stated(columns.split),
        group=stated(columns.group) if columns.group else None,
        mpp=stated(columns.mpp),
        stain=stated("stain"),
    )


def _beside(root: Path, kind: Kind) -> Callable[[Path], Path | None]:
    """The labels of an image: below a folder, or where the image lies if that is elsewhere."""

    @functools.cache
    def below(folder: Path) -> dict[Path, Path | None]:
        found = sort_files(folder, walk(folder).files)
        return {
            path: preferred(found.labels.get(key, []), kind)
            for key, paths in found.images.items()
            for path in paths
        }

    def find(image: Path) -> Path | None:
        if image in below(root):
            return below(root)[image]
        folder = image.parent.parent if is_of_images(image.parent.name) else image.parent
        return below(folder).get(image) if folder.is_dir() else None

    return find


def _finder(root: Path) -> Callable[[str], Path]:
    """Images by their path below a folder, or by their name where only one has it."""
    by_name: dict[str, list[Path]] = {}

    def find(name: str) -> Path:
        path = root / expanded(name)
        if os.path.isfile(path):  # Path.is_file raises for a name that is too long
            return path
        if not by_name:
            for image in (p for p in walk(root).files if p.suffix.lower() in IMAGES):
                for key in {image.name, image.stem}:
                    by_name.setdefault(key, []).append(image)
        options = by_name.get(Path(name).name, [])
        return options[0] if len(options) == 1 else path

    return find
