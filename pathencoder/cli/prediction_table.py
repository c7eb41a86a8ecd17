"""The tables that `pathencoder predict` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.errors import StoreError
from pathencoder.files import Mismatch, whole_file
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.predictions import Predictions

_RISKS = ["slide", "risk"]


def rows_of(
    keys: Sequence[Sequence[Any]], found: Predictions, rows: Sequence[int]
) -> list[list[Any]]:
    """The rows of the table: key, label, abstained, probabilities."""
    return [
        [
            *key,
            found.labels[row],
            int(found.abstained[row]),
            *(f"{p:.6g}" for p in found.probabilities[row]),
        ]
        for key, row in zip(keys, rows, strict=True)
    ]


def abstained(table: Sequence[Sequence[Any]], classes: Sequence[str]) -> list[str]:
    """A note on the rows whose label the head abstains from."""
    count = sum(row[-len(classes) - 1] for row in table)
    return [f"{count:,} abstained"] if count else []


def write_table(
    file: Path, header: Sequence[str], classes: Sequence[str], table: Sequence[Sequence[Any]]
) -> None:
    """Write a table of predictions; a file of that name that is none is not overwritten."""
    _write(file, [*header, "label", "abstained", *(f"p_{printable(c)}" for c in classes)], table)


def write_risks(file: Path, table: Sequence[Sequence[Any]]) -> None:
    """Write a table of the risks of slides; a file of that name that is none is not overwritten."""
    _write(file, _RISKS, table)


def _write(file: Path, columns: Sequence[str], table: Sequence[Sequence[Any]]) -> None:
    if file.exists() and not _is_table(file):
        raise Mismatch(f"{file} is not a table of predictions, and is not changed: move it")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([columns, *table])
    with whole_file(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _is_table(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            header = next(csv.reader(stream), [])
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}") from error
    of_classes = "abstained" in header and any(name.startswith("p_") for name in header)
    return of_classes or header == _RISKS
