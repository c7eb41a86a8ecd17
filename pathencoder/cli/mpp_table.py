"""`--slides-csv` (also `--mpp-csv`): a table with settings of single inputs, matched to the inputs.

A row names its input by path, file name, file name without suffix, or name of the output. A row
belongs to the input with which it shares the longest end of the path. A row with folders of which
the input has none (a table of another machine) is taken, with a note, only where no other input and
no other row has this file name, and no other file has this path. Unicode composition does not
matter, case does. Rows that match no input are noted. The other columns are `mpp`,
`target_mpp`, `min_tissue`, `tissue` (a GeoJSON file; a relative path counts from the table) and
`stain`; an empty cell leaves what the command says.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathencoder.cli.job import Job
from pathencoder.cli.names import file_stem
from pathencoder.errors import ConfigError
from pathencoder.tables import number, read_table
from pathencoder.walk import expanded, printable

if TYPE_CHECKING:
    from pathencoder.features.provenance import Settings

ENCODE = ("mpp", "target_mpp", "min_tissue", "tissue")  # the columns that `encode` uses
NUCLEI = ("mpp", "stain")
_SETTINGS = tuple(dict.fromkeys((*ENCODE, *NUCLEI)))
_KNOWN = ("slide", *_SETTINGS, "unit", "units")
_STAINS = ("he", "ihc")
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
_ELSEWHERE = 1  # the rank of a row whose folders are not those of the input


@dataclass(frozen=True)
class Row:
    """One row: its place ("slides.csv, line 2"), the input that it names, and its settings.

    None: the cell is empty.
    """

    where: str
    slide: str
    mpp: float | None = None
    target_mpp: float | None = None
    min_tissue: float | None = None
    tissue: Path | None = None
    stain: str | None = None

    def given(self, columns: Sequence[str] = _SETTINGS) -> dict[str, Any]:
        """The settings of these columns that are not empty."""
        values = {name: getattr(self, name) for name in columns}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Scales:
    """The settings of inputs.

    Attributes:
        rows: The row of each job; None where no row names it.
        notes: Sentences for the summary on rows that were not used or are ambiguous.
    """

    rows: list[Row | None]
    notes: list[str]

    @property
    def files(self) -> list[Path]:
        """The files that the table names."""
        return [row.tissue for row in self.rows if row is not None and row.tissue is not None]

    def of(self, some: Sequence[Job], jobs: Sequence[Job]) -> Scales:
        """The settings of some of the jobs that rows were matched to, in their order."""
        rows = {id(job): row for job, row in zip(jobs, self.rows, strict=True)}
        return Scales([rows[id(job)] for job in some], self.notes)


def with_row(settings: Settings, row: Row | None) -> Settings:
    """The settings of an input: those of its row, else those of the command."""
    return settings if row is None else replace(settings, **row.given(ENCODE))


def read_mpp_csv(file: Path) -> list[Row]:
    """The rows of a table with a column `slide` and at least one setting.

    Raises:
        ConfigError: The table cannot be read, has no setting or an unknown column, or rows have no
            name or a value that is not valid; the message lists them with their lines.
    """
    table = read_table(file, ("slide",))
    _check_columns(file, table.columns)
    alone = [name for name in table.columns if name in _SETTINGS]
    rows, wrong = list[Row](), list[str]()
    for where, cells in table:
        row, problems = _row(where, cells, table.delimiter, file.parent)
        if not problems and len(alone) == 1 and not row.given():
            problems = [f"{alone[0]} is empty"]
        rows.append(row)
        wrong += [f"{where}: slide {cells['slide']!r}: {problem}" for problem in problems]
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise ConfigError("\n".join([*wrong[:_SHOWN], *more]))
    return rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    for name in columns:
        if name and name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.6)
            hint = f". Did you mean {close[0]!r}?" if close else "."
            raise ConfigError(
                f"{file}: the column {name!r} is not known{hint} Columns are slide,"
                f" {', '.join(_SETTINGS)}. Rename it, or remove it"
            )
    if not set(columns) & set(_SETTINGS):
        raise ConfigError(
            f"{file}: the header line has no setting besides 'slide': add the column 'mpp', or one"
            f" of {', '.join(_SETTINGS[1:])}"
        )


def _row(where: str, cells: dict[str, str], delimiter: str, folder: Path) -> tuple[Row, list[str]]:
    """A row, and what is wrong with it."""
    problems = [] if cells["slide"] else ["a name is needed"]
    found: dict[str, Any] = {}
    for name, low, high in (("mpp", 0.01, 100), ("target_mpp", 0.01, 100), ("min_tissue", 0, 1)):
        if text := cells.get(name):
            found[name] = _number(text, delimiter, low, high)
            if found[name] is None:
                problems.append(f"{name} {text!r}: a number from {low:g} to {high:g} is needed")
    if text := cells.get("stain"):
        found["stain"] = text.casefold() if text.casefold() in _STAINS else None
        if found["stain"] is None:
            problems.append(f"stain {text!r}: one of {', '.join(_STAINS)} is needed")
    if text := cells.get("tissue"):
        found["tissue"] = (folder / expanded(text)).absolute()
        if not found["tissue"].is_file():
            problems.append(f"tissue {text!r}: there is no such file ({found['tissue']})")
    unit = cells.get("unit") or cells.get("units") or ""
    if unit.casefold() not in _UNITS:
        problems.append(f"the unit is {unit!r}: give all scales in um per pixel")
    return Row(where, cells["slide"], **found), problems


def assign(rows: Sequence[Row], jobs: Sequence[Job], columns: Sequence[str] = ENCODE) -> Scales:
    """Match rows to jobs.

    Args:
        rows: The rows of the table.
        jobs: The jobs, with their names.
        columns: The settings that the command uses; others are noted.

    Returns:
        A row or None for each job, and notes on what was not used.

    Raises:
        ConfigError: Two rows give one input different settings.
    """
    real = [job for job in jobs if job.kind != "nothing"]
    named = [_Names(job) for job in real]
    ranks = _ranks(rows, named)
    used: set[int] = set()
    found: dict[int, Row] = {}
    whose: dict[int, list[Job]] = {}
    for column, job in enumerate(real):
        fitting = [
            r for r, line in enumerate(ranks) if line[column] > 0 and line[column] == max(line)
        ]
        best = [
            r for r in fitting if ranks[r][column] == max(ranks[other][column] for other in fitting)
        ]
        _refuse_two(job, [rows[r] for r in best])
        used.update(fitting)
        if best:
            found[id(job)] = rows[best[0]]
            whose.setdefault(best[0], []).append(job)
    unused = [row for r, row in enumerate(rows) if r not in used]
    shared = [_shared(rows[r], several) for r, several in sorted(whose.items()) if len(several) > 1]
    elsewhere = [
        _elsewhere(rows[r], several[0])
        for r, several in sorted(whose.items())
        if max(ranks[r]) == _ELSEWHERE
    ]
    idle = {name: None for row in rows for name in row.given() if name not in columns}
    notes = [f"the column {name!r} of the table is not used by this command" for name in idle]
    return Scales(
        [found.get(id(job)) for job in jobs],
        [*notes, *_unused(unused, real), *shared[:_SHOWN], *elsewhere[:_SHOWN]],
    )


def _ranks(rows: Sequence[Row], named: Sequence[_Names]) -> list[list[int]]:
    """How well each row fits each input."""
    ranks = [[names.rank(row.slide) for names in named] for row in rows]
    rivals = [sum(line[column] > 0 for line in ranks) for column in range(len(named))]
    for row, line in zip(rows, ranks, strict=True):
        if max(line, default=0) != _ELSEWHERE:
            continue
        column = line.index(_ELSEWHERE)
        is_only = line.count(_ELSEWHERE) == 1 and rivals[column] == 1
        if not is_only or named[column].is_another_file(row.slide):
            line[:] = [0] * len(line)
    return ranks


def _refuse_two(job: Job, rows: Sequence[Row]) -> None:
    """Raises ConfigError where rows give one input different settings."""
    for name in _SETTINGS:
        values = {getattr(row, name) for row in rows}
        if len(values) > 1:
            what = "scales" if name == "mpp" else f"values of {name}"
            said = "; ".join(f"{row.where} says {_said(getattr(row, name))}" for row in rows)
            raise ConfigError(
                f"{printable(job.source)}: two rows give it different {what} ({said}). Name it by"
                " its path, once"
            )


def _said(value: object) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class _Names:
    """The names by which a row may refer to a job."""

    def __init__(self, job: Job) -> None:
        self._source = job.source
        self.whole = _parts(os.path.abspath(job.source))
        self.given = _parts(os.fspath(job.source))
        self.last = {
            _composed(printable(name))
            for name in (file_stem(job.source), job.source.stem, job.name)
        }

    def rank(self, slide: str) -> int:
        """How well a row's name fits.

        0: not at all; `_ELSEWHERE`: its folders do not; more for each folder that does; 1000: in
        full.
        """
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
        if len(row) > 1 and not shared:
            return _ELSEWHERE
        return 2 * (1 + shared) + (row[-1] == self.whole[-1])

    def is_another_file(self, slide: str) -> bool:
        """Whether the path in a row is that of another file than this input."""
        try:
            return not os.path.samefile(slide, self._source)
        except (OSError, ValueError):  # there is no file of that path
            return False


def _elsewhere(row: Row, job: Job) -> str:
    return (
        f"{row.where}: {row.slide!r} is used for {printable(job.source)}, which lies in another"
        " folder: if that is another slide, give it a row of its own"
    )


def _shared(row: Row, jobs: Sequence[Job]) -> str:
    named = ", ".join(printable(job.source) for job in jobs[:3]) + ", ..." * (len(jobs) > 3)
    said = f"{row.where}: {row.slide!r} names {len(jobs)} inputs ({named})"
    values = ", ".join(f"{name} {_said(value)}" for name, value in row.given().items())
    return f"{said}, which all get its {values}: name them by their paths"


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
    *folders, name = _parts(slide)
    if name in images:
        return ": the images of one folder have one scale, name the folder"
    if folders and name in {_composed(other) for other in known}:
        return ": the inputs of this name lie in other folders"
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.75)
    return f". Did you mean {folded[close[0]]!r}?" if close else ""


def _parts(path: str) -> tuple[str, ...]:
    """A path's components, of either system, composed and printable."""
    split = re.split(r"[/\\]+", _composed(printable(path)).strip().removeprefix("./").rstrip("/\\"))
    return tuple(split)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _number(text: str, delimiter: str, low: float, high: float) -> float | None:
    try:
        value = number(text, delimiter)
    except ValueError:
        return None
    return value if math.isfinite(value) and low <= value <= high else None
