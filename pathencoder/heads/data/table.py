"""A table with a row an image: path, label and, optionally, group and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import Dataset, split_names
from pathencoder.heads.data.empty import is_empty, is_no_value
from pathencoder.tables import Table, read_table
from pathencoder.walk import expanded, printable

PATHS = ("path", "file", "filename", "image", "image_path")
_LABELS = ("label", "class", "target")
# the first that holds a value is taken: tiles of one patient must never be in train and test
GROUPS = ("group", "patient", "patient_id", "case", "case_id", "slide", "slide_id")
SPLITS = ("split", "fold")  # not "part": that of a body
_NAMED = {"label": ", or name it: labels= (--label)"}  # what has an argument for another name


def read_csv(
    file: Path, *, label: str | None = None, group: str | None = None, split: str | None = None
) -> Dataset:
    """Read a table (commas, semicolons or tabs) whose paths are relative to its folder.

    Args:
        file: The table.
        label: The column of the classes. None: "label", "class" or "target".
        group: The column of the groups. None: the first of "group", "patient", "patient_id",
            "case", "case_id", "slide" and "slide_id" that names one in any row.
        split: The column of the parts. None: "split" or "fold".

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
    return Dataset(
        images=tuple(file.parent / expanded(row[paths]) for row in table.rows),
        labels=tuple(row[labels] for row in table.rows),
        groups=None if groups is None else tuple(row[groups] for row in table.rows),
        splits=None if splits is None else split_names(row[splits] for row in table.rows),
        where=tuple(printable(table.where(i)) for i in range(len(table.rows))),
        notes=group_notes(table, group, groups),
    )


def column(table: Table, given: str | None, names: tuple[str, ...], what: str) -> str:
    """The given column, or the first of `names` that holds a value, else that the table has.

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
            f" {', '.join(table.columns) or 'none'}. Rename one ({', '.join(names)})"
            f"{_NAMED.get(what, '')}"
        )
    return found


def optional_column(table: Table, given: str | None, names: tuple[str, ...]) -> str | None:
    """The same for a column that may be missing: None where it is, unless it was given."""
    if given is None:
        present = [name for name in names if name in table.columns]
        # an empty column must not hide one with values
        filled = (n for n in present if any(not is_empty(row[n]) for row in table.rows))
        return next(filled, present[0] if present else None)
    if given.strip().casefold() not in table.columns:
        raise ConfigError(
            f"{printable(table.file)}: no column {given!r}; the columns are"
            f" {', '.join(table.columns) or 'none'}"
        )
    return given.strip().casefold()


def known_groups(table: Table, given: str | None, names: tuple[str, ...]) -> str | None:
    """The given column, or the first of `names` that holds a group; None where none does."""
    if given is not None:
        return optional_column(table, given, names)
    return next(_with_groups(table, names), None)


def group_notes(
    table: Table, given: str | None, found: str | None, names: tuple[str, ...] = GROUPS
) -> tuple[str, ...]:
    """Say which column was taken as the group, where it is not called so or others could be it."""
    others = [name for name in _with_groups(table, names) if name != found]
    if given is not None or found is None or (found == "group" and not others):
        return ()
    among = f", not {', '.join(others)} (groups= or --groups names another)" if others else ""
    return (f"the column {found!r} was taken as the group{among}",)


def _with_groups(table: Table, names: Sequence[str]) -> Iterator[str]:
    """The columns that hold a group in any row."""
    for name in names:
        if name in table.columns and any(not is_no_value(row[name]) for row in table.rows):
            yield name
