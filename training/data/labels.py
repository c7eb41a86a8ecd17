"""Read a labels.csv: file, label, and optionally group and split."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.tables import Table, read_table
from training.data.values import Split, column, name_of, split_of

FOLDS = "folds"  # the part of rows that are read by cross-validation
# Columns that are not read, with a name close to one that separates patients or test images.
_MISNAMED = {
    "splits": "split",
    "groups": "group",
    "patient": "group",
    "patients": "group",
    "patient_id": "group",
}


@dataclass(frozen=True)
class LabelRow:
    """One labelled image.

    Attributes:
        file: Its path relative to the folder of the table.
        label: Its class.
        group: Its patient, slide or case; the file where none is named.
        part: "train", "folds", "val", "test", or the table's name for another held-out split.
    """

    file: str
    label: str
    group: str
    part: str


def read_label_rows(path: Path, *, choose: bool = False) -> list[LabelRow]:
    """Read a labels.csv.

    Args:
        path: The table, in the folder of its images.
        choose: Leave out held-out splits: the rows are used to make choices.

    Returns:
        Its rows, in order.

    Raises:
        ConfigError: A column is missing or misnamed, a split is unknown, a row has no file or
            label, a file does not exist or has two rows, two labels differ in case or Unicode
            composition only, a group is in two splits, or only some rows have a fold. The message
            names the lines.
    """
    table = read_table(path, required=("file", "label"))
    _refuse_misnamed_columns(table)
    splits = column(table, "split", split_of)
    rows = [_row(table, i, split) for i, split in enumerate(splits)]
    _refuse_repeated_files(table, rows)
    _refuse_similar_labels(table, rows)
    _refuse_shared_groups(table, rows)
    _refuse_mixed_parts(path, rows)
    kept = [i for i, split in enumerate(splits) if not (choose and split.held_out)]
    if not kept:
        raise ConfigError(f"{path}: no rows" + (" but of held-out parts" if rows else ""))
    for i in kept:
        if not (path.parent / rows[i].file).is_file():
            raise ConfigError(f"{table.where(i)}: there is no {rows[i].file!r} in {path.parent}")
    return [rows[i] for i in kept]


def _row(table: Table, index: int, split: Split) -> LabelRow:
    row = table.rows[index]
    label = name_of(row["label"])
    if not row["file"] or not label:
        raise ConfigError(f"{table.where(index)}: every row needs a file and a label")
    part = FOLDS if not split.name or split.name.startswith("fold") else split.name
    return LabelRow(row["file"], label, name_of(row.get("group", "")) or row["file"], part)


def _refuse_misnamed_columns(table: Table) -> None:
    for name, meant in _MISNAMED.items():
        if name in table.columns and meant not in table.columns:
            raise ConfigError(
                f"{table.file}: the column {name!r} is not read. Rename it to {meant!r}"
            )


def _refuse_repeated_files(table: Table, rows: Sequence[LabelRow]) -> None:
    first: dict[object, int] = {}
    for i, row in enumerate(rows):
        before = first.setdefault(_image(table.file.parent / row.file), i)
        if before != i:
            raise ConfigError(
                f"{table.where(before)} and line {table.lines[i]} are both of {row.file!r}."
                " Keep one"
            )


def _image(path: Path) -> object:
    """A value that two rows of one image share, also where one names it by a link."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return posixpath.normpath(path)
    return (status.st_dev, status.st_ino) if status.st_ino else posixpath.normpath(path)


def _refuse_similar_labels(table: Table, rows: Sequence[LabelRow]) -> None:
    first: dict[str, str] = {}
    for i, row in enumerate(rows):
        folded = unicodedata.normalize("NFKC", row.label).casefold()
        before = first.setdefault(folded, row.label)
        if before != row.label:
            raise ConfigError(
                f"{table.where(i)}: the label {row.label!a} differs from {before!a} in case or"
                " Unicode composition only. Use one spelling"
            )


def _refuse_shared_groups(table: Table, rows: Sequence[LabelRow]) -> None:
    parts: dict[str, str] = {}
    for i, row in enumerate(rows):
        before = parts.setdefault(row.group.casefold(), row.part)
        if before != row.part:
            raise ConfigError(
                f"{table.where(i)}: group {row.group!r} is in {before} and in {row.part}. Give each"
                " group one split"
            )


def _refuse_mixed_parts(path: Path, rows: Sequence[LabelRow]) -> None:
    parts = {row.part for row in rows}
    if FOLDS in parts and len(parts) > 1:
        others = ", ".join(sorted(parts - {FOLDS}))
        raise ConfigError(
            f"{path}: some rows have the split {others}, others none or a fold. Give every row one"
        )
