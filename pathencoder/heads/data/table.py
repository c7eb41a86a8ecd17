"""A table with a row an image: path, label and, optionally, group and split."""

from __future__ import annotations

from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset, split_names
from pathencoder.heads.data.empty import is_no_value
from pathencoder.tables import Table, read_table
from pathencoder.walk import printable

PATHS = ("path", "file", "filename", "image", "image_path")
_LABELS = ("label", "class", "target")
# the first that a table has is taken: tiles of one patient must never be in train and test
GROUPS = ("group", "patient", "patient_id", "case", "case_id", "slide", "slide_id")
SPLITS = ("split", "fold", "part")


def read_csv(
    file: Path, *, label: str | None = None, group: str | None = None, split: str | None = None
) -> Dataset:
    """Read a table (commas, semicolons or tabs) whose paths are relative to its folder.

    Args:
        file: The table.
        label: The column of the classes. None: "label", "class" or "target".
        group: The column of the groups. None: the first of "group", "patient", "patient_id",
            "case", "case_id", "slide" and "slide_id" that there is; none where there is none, or
            where no row names one.
        split: The column of the parts. None: the first of "split", "fold" and "part" that there is.

    Returns:
        Labelled images.

    Raises:
        ConfigError: The table cannot be read, or lacks a column.
    """
    table = read_table(file)
    paths = column(table, None, PATHS, "path")
    labels = column(table, label, _LABELS, "label")
    groups = known_groups(table, group, GROUPS)
    splits = optional_column(table, split, SPLITS)
    empty = [table.where(i) for i, row in enumerate(table.rows) if not row[paths]]
    if empty:
        raise ConfigError(f"{empty[0]}: the column {paths!r} is empty ({len(empty)} rows)")
    named = groups is not None and group is None and groups != "group"
    return Dataset(
        images=tuple(file.parent / Path(row[paths]).expanduser() for row in table.rows),
        labels=tuple(row[labels] for row in table.rows),
        groups=None if groups is None else tuple(row[groups] for row in table.rows),
        splits=None if splits is None else split_names(row[splits] for row in table.rows),
        where=tuple(printable(table.where(i)) for i in range(len(table.rows))),
        notes=(f"the column {groups!r} was taken as the group",) if named else (),
    )


def column(table: Table, given: str | None, names: tuple[str, ...], what: str) -> str:
    """The given column, or the first of `names` that the table has.

    Args:
        table: The table.
        given: Its name; None: not given.
        names: The usual names.
        what: What errors call its values.

    Raises:
        ConfigError: The table has no such column.
    """
    found = optional_column(table, given, names)
    if found is None:
        raise ConfigError(
            f"{printable(table.file)}: no column {names[0]!r} for the {what}; the columns are"
            f" {', '.join(table.columns) or 'none'}"
        )
    return found


def optional_column(table: Table, given: str | None, names: tuple[str, ...]) -> str | None:
    """The same for a column that may be missing: None where it is, unless it was given."""
    if given is None:
        return next((name for name in names if name in table.columns), None)
    if given.strip().casefold() not in table.columns:
        raise ConfigError(
            f"{printable(table.file)}: no column {given!r}; the columns are"
            f" {', '.join(table.columns) or 'none'}"
        )
    return given.strip().casefold()


def known_groups(table: Table, given: str | None, names: tuple[str, ...]) -> str | None:
    """The same for groups; None also for a column that nobody named and that holds no value."""
    found = optional_column(table, given, names)
    if given is None and found is not None and all(is_no_value(row[found]) for row in table.rows):
        return None
    return found
