"""OUT/summary.csv and OUT/summary.json: every input of an output folder and its status.

`encode --only-tissue` keeps tissue_summary.csv and tissue_summary.json, so that neither command
replaces the rows of the other.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathencoder.cli.common import as_json_text
from pathencoder.cli.report import lock_list, one_json
from pathencoder.errors import StoreError
from pathencoder.features.identity import place_of
from pathencoder.features.job import Outcome
from pathencoder.files import storing, whole_file
from pathencoder.walk import printable

SUMMARY, TISSUE_SUMMARY = "summary", "tissue_summary"
_FORMAT = "pathencoder summary 1"
_HEADER = [
    "name",
    "status",
    "file",
    "rows",
    "failed",
    "seconds",
    "tiles_per_second",
    "waited_for_reading",
    "encoder",
    "reader",
    "mpp",
    "notes",
    "input",
]
_NOT_PROCESSED = frozenset({"unreached", "stopped", "busy"})
_MADE = frozenset({"done", "empty"})


def write_summaries(out: Path, outcomes: Sequence[Outcome], *, name: str = SUMMARY) -> Path:
    """Update the two files: one row for each input and encoder.

    Rows of inputs that are not of this run stay. A row that says how a file was made stays when a
    later run finds the file done before; so does that of an input that this run did not process.

    Args:
        out: The output folder.
        outcomes: Of this run.
        name: Of the files.

    Returns:
        The path of the table.

    Raises:
        StoreError: They cannot be written, or files of these names are not such summaries.
    """
    table, whole = out / f"{name}.csv", out / f"{name}.json"
    with lock_list(whole):
        _refuse_foreign(table)
        earlier = _read(whole)
        rows = _merged(earlier, [_row(outcome) for outcome in outcomes])
        with whole_file(whole) as temporary:
            temporary.write_text(as_json_text({"format": _FORMAT, "inputs": rows}), "utf-8")
        text = io.StringIO(newline="")
        csv.writer(text).writerows([_HEADER, *map(_line, rows)])
        with whole_file(table) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return table


def _row(outcome: Outcome) -> dict[str, Any]:
    """An outcome, with the absolute path: another run may have another current folder."""
    return {**one_json(outcome), "input": place_of(outcome.source)}


def is_summary(path: Path) -> bool:
    """Whether a file is one of those that `write_summaries` writes."""
    if path.stem not in (SUMMARY, TISSUE_SUMMARY) or path.suffix not in (".csv", ".json"):
        return False
    try:
        if path.suffix == ".csv":
            _refuse_foreign(path)
        else:
            _read(path)
    except StoreError:
        return False
    return True


def _merged(earlier: Sequence[Mapping[str, Any]], new: Sequence[dict[str, Any]]) -> list[Any]:
    """The rows of earlier runs, with those of this run in their places or at the end."""
    kept: list[Mapping[str, Any]] = list(earlier)
    for row in new:
        same = [other for other in kept if _is_of(other, row)]
        before = row["status"] == "before" and any(o["status"] in _MADE for o in same)
        if before or (same and row["status"] in _NOT_PROCESSED):
            continue
        place = kept.index(same[0]) if same else len(kept)
        kept = [other for other in kept if other not in same]
        kept.insert(min(place, len(kept)), row)
    return kept


def _is_of(other: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether two rows are of one input and encoder; no encoder: of all of them."""
    encoders = {other["encoder"], row["encoder"]}
    one = len(encoders) == 1 or "" in encoders
    return one and place_of(other["input"]) == place_of(row["input"])


def _line(row: Mapping[str, Any]) -> list[str]:
    cells = {
        **row,
        "name": Path(row["input"]).name,
        "failed": len(row["failures"]),
        "notes": "; ".join(row["notes"]),
    }
    return [printable("" if cells[key] is None else str(cells[key])) for key in _HEADER]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with storing(path):
        text = path.read_text("utf-8", errors="replace")
    try:
        found = json.loads(text)
        if found["format"] == _FORMAT:
            return [dict(row) for row in found["inputs"]]
    except (ValueError, TypeError, KeyError):
        pass
    raise _foreign(path)


def _refuse_foreign(path: Path) -> None:
    if not path.exists():
        return
    with storing(path), path.open(encoding="utf-8", errors="replace") as stream:
        if stream.readline().strip() != ",".join(_HEADER):
            raise _foreign(path)


def _foreign(path: Path) -> StoreError:
    return StoreError(
        f"{path} is not a summary that pathencoder wrote, and is not changed: move it, or choose"
        " another --out"
    )
