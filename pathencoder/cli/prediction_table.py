"""The tables that `pathencoder predict` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.cli.prediction_record import Record, read
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


@dataclass(frozen=True)
class Target:
    """Where the table of an input goes.

    Attributes:
        file: The table.
        record: Of what it is.
    """

    file: Path
    record: Record

    def rows_before(self, *, overwrite: bool) -> int | None:
        """The rows of the table that an earlier run has finished; None where it has to be written.

        Args:
            overwrite: Write it anew, also in the place of one of another input.

        Raises:
            Mismatch: The file is no table of predictions, or one of another input or head.
        """
        if not self.file.exists():
            return None
        if not _is_table(self.file):
            raise Mismatch(
                f"{self.file} is not a table of predictions, and is not changed: move it"
            )
        if overwrite:
            return None
        before = read(self.file)
        self.record.check_owner(self.file, before)
        done = before is not None and self.record.done_before(self.file, before)
        return before.rows if before is not None and done else None

    def write(
        self, columns: Sequence[str], table: Sequence[Sequence[Any]], *, failures: int
    ) -> None:
        """Write the table and its record.

        Raises:
            StoreError: One of them cannot be written.
        """
        text = io.StringIO(newline="")
        csv.writer(text).writerows([columns, *table])
        content = text.getvalue().encode()
        self.record.write(self.file, content, rows=len(table), failures=failures)
        with whole_file(self.file) as temporary:
            temporary.write_bytes(content)


def write_table(
    target: Target,
    header: Sequence[str],
    classes: Sequence[str],
    table: Sequence[Sequence[Any]],
    *,
    failures: int = 0,
) -> None:
    """Write a table of predictions; `failures` parts of the input are not in it."""
    columns = [*header, "label", "abstained", *(f"p_{printable(c)}" for c in classes)]
    target.write(columns, table, failures=failures)


def write_risks(target: Target, table: Sequence[Sequence[Any]], *, failures: int = 0) -> None:
    """The same for a table of the risks of slides."""
    target.write(_RISKS, table, failures=failures)


def _is_table(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            header = next(csv.reader(stream), [])
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}") from error
    of_classes = "abstained" in header and any(name.startswith("p_") for name in header)
    return of_classes or header == _RISKS
