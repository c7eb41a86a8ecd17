"""`--mpp-csv`: a table with the micrometres per pixel of many inputs, matched to the inputs.

A row names its input by path, file name, file name without suffix, or name of the output. A row
belongs to the input with which it shares the longest end of the path. Unicode composition does
not matter, case does. Rows that match no input are noted.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.cli.names import file_stem
from pathencoder.errors import ConfigError
from pathencoder.tables import number, read_table
from pathencoder.walk import printable

COLUMNS = ("slide", "mpp")
_UNITS = (
    "",
    "um",
    "\u00b5m",
    "\u03bcm",
    "um/px",
    "\u00b5m/px",
    "\u03bcm/px",
    "mpp",
    "micron",
    "microns",
)
_SHOWN = 10


@dataclass(frozen=True)
class Row:
    """One row: its place ("mpp.csv, line 2"), the slide that it names, micrometres per pixel."""

    where: str
    slide: str
    mpp: float


@dataclass(frozen=True)
class Scales:
    """The scales of inputs.

    Attributes:
        mpps: Micrometres per pixel of each job; None where no row names it.
        notes: Sentences for the summary on rows that were not used or are ambiguous.
    """

    mpps: list[float | None]
    notes: list[str]


def read_mpp_csv(file: Path) -> list[Row]:
    """The rows of a table with columns `slide` and `mpp`.

    Raises:
        ConfigError: The table cannot be read, a column is missing, a row has no name, its mpp is
            not a number from 0.01 to 100, or a column `unit` names another unit. The message
            names the line.
    """
    table = read_table(file, COLUMNS)
    rows = []
    for where, row in table:
        mpp = _mpp(row["mpp"], table.delimiter)
        if not row["slide"] or mpp is None:
            raise ConfigError(
                f"{where}: slide {row['slide']!r}, mpp {row['mpp']!r}: a name and an mpp from 0.01"
                " to 100 are needed"
            )
        unit = row.get("unit") or row.get("units") or ""
        if unit.casefold() not in _UNITS:
            raise ConfigError(f"{where}: the unit is {unit!r}: give all scales in um per pixel")
        rows.append(Row(where, row["slide"], mpp))
    return rows


def assign(rows: Sequence[Row], jobs: Sequence[Job]) -> Scales:
    """Match rows to jobs.

    Args:
        rows: The rows of the table.
        jobs: The jobs, with their names.

    Returns:
        A scale or None for each job, and notes on rows that were not used.

    Raises:
        ConfigError: Two rows give one input different scales.
    """
    real = [job for job in jobs if job.kind != "nothing"]
    named = [_Names(job) for job in real]
    ranks = [[names.rank(row.slide) for names in named] for row in rows]
    used: set[int] = set()
    mpps: dict[int, float] = {}
    whose: dict[int, list[Job]] = {}
    for column, job in enumerate(real):
        fitting = [
            r for r, line in enumerate(ranks) if line[column] > 0 and line[column] == max(line)
        ]
        best = [
            r for r in fitting if ranks[r][column] == max(ranks[other][column] for other in fitting)
        ]
        if len({rows[r].mpp for r in best}) > 1:
            said = "; ".join(f"{rows[r].where} says {rows[r].mpp:g}" for r in best)
            raise ConfigError(
                f"{printable(job.source)}: two rows give it different scales ({said}). Name it by"
                " its path, once"
            )
        used.update(fitting)
        if best:
            mpps[id(job)] = rows[best[0]].mpp
            whose.setdefault(best[0], []).append(job)
    unused = [row for r, row in enumerate(rows) if r not in used]
    shared = [_shared(rows[r], several) for r, several in sorted(whose.items()) if len(several) > 1]
    return Scales([mpps.get(id(job)) for job in jobs], [*_unused(unused, real), *shared[:_SHOWN]])


class _Names:
    """The names by which a row may refer to a job."""

    def __init__(self, job: Job) -> None:
        self.whole = _parts(os.path.abspath(job.source))
        self.given = _parts(os.fspath(job.source))
        self.last = {
            _composed(printable(name))
            for name in (file_stem(job.source), job.source.stem, job.name)
        }

    def rank(self, slide: str) -> int:
        """How well a row's name fits: 0 not at all, more for each matching folder, 1000 in full."""
        row = _parts(slide)
        if row in (self.whole, self.given):
            return 1000
        if row[-1] != self.whole[-1] and row[-1] not in self.last:
            return 0
        pairs = zip(reversed(row[:-1]), reversed(self.whole[:-1]), strict=False)
        shared = 0
        for mine, theirs in pairs:
            if mine != theirs:
                break
            shared += 1
        return 2 * (1 + shared) + (row[-1] == self.whole[-1])


def _shared(row: Row, jobs: Sequence[Job]) -> str:
    named = ", ".join(printable(job.source) for job in jobs[:3]) + ", ..." * (len(jobs) > 3)
    said = f"{row.where}: {row.slide!r} names {len(jobs)} inputs ({named})"
    return f"{said}, which all get its {row.mpp:g} um/px: name them by their paths"


def _unused(rows: Sequence[Row], jobs: Sequence[Job]) -> list[str]:
    known = {name: job for job in jobs for name in (printable(job.source.name), job.name)}
    images = {_composed(printable(path.name)) for job in jobs for _, path in job.images}
    notes = [
        f"{row.where}: {row.slide!r} names no input, and is not"
        f" used{_hint(row.slide, list(known), images)}"
        for row in rows
    ]
    more = (
        [f"{len(rows) - _SHOWN} more rows of the table name no input"] if len(rows) > _SHOWN else []
    )
    return notes[:_SHOWN] + more


def _hint(slide: str, known: Sequence[str], images: set[str]) -> str:
    name = _parts(slide)[-1]
    if name in images:
        return ": the images of one folder have one scale, name the folder"
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.75)
    return f". Did you mean {folded[close[0]]!r}?" if close else ""


def _parts(path: str) -> tuple[str, ...]:
    """A path's components, of either system, composed and printable."""
    split = re.split(r"[/\\]+", _composed(printable(path)).strip().removeprefix("./").rstrip("/\\"))
    return tuple(split)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _mpp(text: str, delimiter: str) -> float | None:
    try:
        value = number(text, delimiter)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0.01 <= value <= 100 else None
