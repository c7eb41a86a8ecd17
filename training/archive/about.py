"""A table of what a hospital knows of its slides: which columns of it enter, and which do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathencoder.errors import ConfigError
from pathencoder.tables import Table, read_table
from training.archive.privacy import is_personal
from training.archive.row import FIELDS

READ = ("patient", "stain_class", "stain", "organ", "scanner", "mpp_value", "licence", "split")
_SHOWN = 50


@dataclass(frozen=True)
class About:
    """What a table says of slides.

    Attributes:
        rows: Name of a slide as the table writes it -> column -> value as text, checked.
        left_out: The columns that were not read.
    """

    rows: dict[str, dict[str, str]]
    left_out: tuple[str, ...] = ()

    def of(self, source_id: str) -> Mapping[str, str]:
        """What it says of a slide, by path, file name, or file name without suffix."""
        path = PurePosixPath(source_id)
        for name in (source_id, path.name, path.stem):
            if name in self.rows:
                return self.rows[name]
        return {}


NOTHING = About({})


def read_about(file: Path) -> About:
    """Read a table with a column `slide` and any of READ; other columns are dropped here.

    Raises:
        ConfigError: It cannot be read, or values are not valid: the message lists all problems.
    """
    table = read_table(file, ("slide",))
    left_out = [name for name in table.columns if name not in (*READ, "slide")]
    personal = [name for name in left_out if is_personal(name)]
    problems = _problems(table)
    if problems:
        raise ConfigError("\n".join([f"{file}:", *problems[:_SHOWN]]))
    rows = {row["slide"]: {name: row[name] for name in READ if row.get(name)} for _, row in table}
    order = [*personal, *(name for name in left_out if name not in personal)]
    return About(rows, tuple(order))


def _problems(table: Table) -> list[str]:
    readers = {f.name: f.metadata["read"] for f in FIELDS}
    problems, seen = [], set[str]()
    for where, row in table:
        if not row["slide"]:
            problems.append(f"{where}: it names no slide")
        elif row["slide"] in seen:
            problems.append(f"{where}: {row['slide']!r} is there twice")
        seen.add(row["slide"])
        for name in READ:
            if text := row.get(name):
                try:
                    readers[name](text)
                except ValueError as error:
                    problems.append(f"{where}: {name} is {text!r}: {error}")
    return problems


def values_of(said: Mapping[str, str]) -> dict[str, object]:
    """The values of a manifest's row that a table states, but for the patient."""
    readers = {f.name: f.metadata["read"] for f in FIELDS}
    values: dict[str, object] = {
        name: readers[name](text) for name, text in said.items() if name != "patient"
    }
    if "stain_class" in values:
        values |= {"stain_from": "table", "stain_confidence": 1.0}
    if "mpp_value" in values:
        values["mpp_from"] = "given"
    return values
