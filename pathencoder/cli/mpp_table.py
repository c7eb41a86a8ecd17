"""`--mpp-csv`: the micrometres per pixel of many inputs, one row each."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from pathencoder.errors import ConfigError

COLUMNS = ("slide", "mpp")


def read_mpp_csv(file: Path) -> dict[str, float]:
    """File name, or its stem, to micrometres per pixel, from a CSV with columns `slide` and `mpp`.

    Raises ConfigError for missing columns, an mpp that is no number from 0.01 to 100, and a slide named twice; it names the line.
    """
    found: dict[str, float] = {}
    with file.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets write a byte order mark
        rows = csv.DictReader(stream)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise ConfigError(f"{file}: its first line must name the columns slide and mpp, and it names {rows.fieldnames}")
        for line, row in enumerate(rows, 2):
            name, mpp = Path((row["slide"] or "").strip()).name, _number(row["mpp"])
            if not name or mpp is None:
                raise ConfigError(f"{file}, line {line}: slide {row['slide']!r}, mpp {row['mpp']!r}: an mpp from 0.01 to 100 is needed")
            if name in found:
                raise ConfigError(f"{file}, line {line}: {name} is there twice")
            found[name] = mpp
    return found


def mpp_of(source: Path, table: dict[str, float]) -> float | None:
    """What the table says of an input, by its name or its stem."""
    return table.get(source.name, table.get(source.stem))


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) and 0.01 <= value <= 100 else None
