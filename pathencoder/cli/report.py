"""The end of a run: the summary of all inputs, failures.csv, and the exit status."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.cli.common import plural
from pathencoder.errors import StoreError
from pathencoder.features.identity import place_of
from pathencoder.features.job import Outcome
from pathencoder.files import storing, whole_file
from pathencoder.locks import Busy, Lock
from pathencoder.pace import Pace, who_waits
from pathencoder.text import duration
from pathencoder.walk import LeftOut, printable

FAILURES = "failures.csv"
_SHOWN = 5
_LEFT_OUT_SHOWN = 20
_LOCK_SECONDS = 10.0
_HEADER = ["input", "part", "error", "reason"]
WORDS = {
    "done": "done",
    "empty": "no tissue found",
    "before": "done before",
    "busy": "left to another process",
    "failed": "failed",
    "stopped": "not finished",
    "unreached": "not reached",
}
_PROCESSED = frozenset({"done", "empty", "before", "failed"})


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 all done, 3 some inputs or parts of inputs failed, 1 all inputs failed."""
    failed = [o for o in outcomes if o.status == "failed"]
    if failed and len(failed) == len(outcomes):
        return 1
    return 3 if failed or any(o.failures for o in outcomes) else 0


def write_failures(out: Path, outcomes: Sequence[Outcome]) -> Path | None:
    """Update OUT/failures.csv: input, part, error, reason.

    Inputs are absolute paths: another run may have another current folder. Rows of inputs that this
    run has processed are replaced. Those of other inputs stay, so that a run of other inputs hides
    no earlier failure. A list without rows is deleted.

    Args:
        out: The output folder.
        outcomes: The result of each input.

    Returns:
        The path of the list; None where nothing has failed.

    Raises:
        StoreError: The list cannot be written, or a file of that name is not such a list.
    """
    path = out / FAILURES
    new = _unique(
        [[place_of(o.source), f.part, f.kind, f.reason] for o in outcomes for f in o.failures]
    )
    if not new and not path.exists():
        return None
    with lock_list(path):
        rows = [row for row in _rows(path) if not _replaced(row, outcomes)] + new
        if not rows:
            path.unlink(missing_ok=True)
            return None
        text = io.StringIO(newline="")
        csv.writer(text).writerows([_HEADER, *([printable(v) for v in row] for row in rows)])
        with whole_file(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _unique(rows: list[list[str]]) -> list[list[str]]:
    """The rows without repeats: a tile fails for every encoder."""
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


@contextlib.contextmanager
def lock_list(path: Path) -> Iterator[None]:
    """Let two processes with one output folder update the list one after the other."""
    lock = None
    with contextlib.suppress(Busy):  # after so long the other one is stuck
        lock = Lock(
            path.with_name(f".{path.name}.lock"), "", seconds=_LOCK_SECONDS, between_machines=True
        )
    try:
        yield
    finally:
        if lock:
            lock.release()


def read_failures(out: Path) -> list[tuple[str, str]]:
    """The rows of OUT/failures.csv: the absolute path of the input, and the part that failed.

    The part is empty where the whole input failed.

    Raises:
        StoreError: A file of that name is not such a list.
    """
    return [(place_of(row[0]), row[1]) for row in _rows(out / FAILURES)]


def is_failures_list(path: Path) -> bool:
    """Whether a file is a list of failures that pathencoder wrote."""
    try:
        _rows(path)
    except StoreError:
        return False
    return True


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with storing(path), path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        try:
            header, *rows = [row for row in csv.reader(stream) if row] or [_HEADER]
        except csv.Error:
            header, rows = [], []
    if header != _HEADER or any(len(row) != len(header) for row in rows):
        raise StoreError(
            f"{path} is not a list that pathencoder wrote, and is not changed: move it, or choose"
            " another --out"
        )
    return rows


def _replaced(row: Sequence[str], outcomes: Sequence[Outcome]) -> bool:
    """Whether this run has processed the input or part of an earlier row."""
    place = place_of(row[0])
    for outcome in outcomes:
        if outcome.status in _PROCESSED and place_of(outcome.source) == place:
            if outcome.status == "failed":  # its parts were not processed
                return not row[1]
            return outcome.parts is None or not row[1] or row[1] in outcome.parts
    return False


@dataclass(frozen=True)
class About:
    """What a summary states beside the outcomes.

    Attributes:
        encoder: Name of the encoder; "" where there is none.
        out: The output folder.
        left_out: What was found in folders and not used.
        notes: Sentences that concern no single input.
        seconds: Time of the whole run.
        table: The table of all inputs of the output folder.
    """

    encoder: str
    out: Path
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()
    seconds: float = 0.0
    table: Path | None = None


def as_json(
    outcomes: Sequence[Outcome], about: About, *, failures: Path | None, status: int
) -> dict[str, Any]:
    """The summary as JSON values."""
    return {
        "encoder": about.encoder,
        "out": str(about.out),
        "status": status,
        "failures": failures,
        "notes": list(about.notes),
        "left_out": [{"path": str(left.path), "reason": left.reason} for left in about.left_out],
        "seconds": round(about.seconds, 2),
        "inputs": [one_json(o) for o in outcomes],
    }


def summary(outcomes: Sequence[Outcome], about: About, *, failures: Path | None) -> str:
    """The summary as text: every input and its status, what was left out, how to read the files."""
    lines = [line for outcome in outcomes for line in lines_of(outcome)]
    lines += [*left_out_lines(about.left_out), *(f"Note: {note}" for note in about.notes)]
    counts = Counter(o.status for o in outcomes)
    said = ", ".join(f"{counts[status]} {word}" for status, word in WORDS.items() if counts[status])
    rows = sum(o.rows for o in outcomes)
    inputs = len({o.source for o in outcomes})
    files = "" if len(outcomes) == inputs else f", {plural(len(outcomes), 'file')}"
    lines.append(
        f"{plural(inputs, 'input')}{files}: {said}. {plural(rows, 'embedding')}"
        f"{f' by {about.encoder}' if about.encoder else ''} in {about.out}"
    )
    lines += _speed(outcomes, about.seconds)
    lines += failure_lines(outcomes, failures)
    lines += [f"All inputs of this folder: {about.table}"] if about.table else []
    drawn = [o.picture for o in outcomes if o.picture]
    lines += [f"Pictures of tissue and tiles: {drawn[0].parent}"] if drawn else []
    example = next((o.file for o in outcomes if o.file and o.rows), None)
    if example:
        lines += [
            "Read them:",
            "  import pathencoder",
            f'  rows = pathencoder.read_features("{example.as_posix()}").rows',
        ]
    return "\n".join(lines)


def _rate(outcome: Outcome) -> float | None:
    """New rows a second; None without any."""
    return round(outcome.new / outcome.seconds, 1) if outcome.new and outcome.seconds else None


def _speed(outcomes: Sequence[Outcome], seconds: float) -> list[str]:
    """How fast the run was, and which of reading and network waited."""
    new, total = sum(o.new for o in outcomes), Pace()
    if not new or not seconds:
        return []
    for pace in {id(o.pace): o.pace for o in outcomes}.values():
        total.add(pace)
    words = ", ".join(filter(None, [f"{new / seconds:.1f} embeddings/s", who_waits(total.waiting)]))
    return [f"Speed: {words}"]


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """One line for each thing that was left out, with the reason."""
    lines = [f"Left out: {left.path}: {left.reason}" for left in left_out[:_LEFT_OUT_SHOWN]]
    more = len(left_out) - _LEFT_OUT_SHOWN
    return [*lines, f"Left out: {more:,} more (--json lists them)"] if more > 0 else lines


def failure_lines(outcomes: Sequence[Outcome], failures: Path | None) -> list[str]:
    """Where the list of failures is, and whether this run added to it."""
    if failures is None:
        return []
    of_this_run = any(o.failures for o in outcomes)
    return [
        (
            f"What failed, and why: {failures}"
            if of_this_run
            else f"Of earlier runs, some inputs failed: {failures}"
        )
    ]


def lines_of(outcome: Outcome, unit: str = "embedding") -> list[str]:
    """The lines of one input: its status, what it has, where, notes, and what failed."""
    parts = [f"{_input(outcome)}: {WORDS[outcome.status]}"]
    if outcome.status in ("done", "before"):
        parts.append(plural(outcome.rows, unit))
    if outcome.status == "done":
        rate = (
            f" ({outcome.new / outcome.seconds:.1f}/s)" if outcome.new and outcome.seconds else ""
        )
        parts.append(f"{duration(outcome.seconds)}{rate}")
    if outcome.file:
        parts.append(f"-> {outcome.file}")
    whole = [f for f in outcome.failures if not f.part]
    bad = [f for f in outcome.failures if f.part]
    lines = [", ".join(parts + outcome.notes)] + [
        f"    {f.reason.removeprefix(f'{outcome.source}: ')}" for f in whole
    ]
    if bad:
        lines.append(f"    {len(bad)} could not be read:")
        lines += [f"    {f.part}: {_short(f.reason)}" for f in bad[:_SHOWN]]
        lines += [f"    and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return lines


def _input(outcome: Outcome) -> str:
    """The input as the summary names it: of single images of one folder, their number too."""
    if outcome.parts is None or not outcome.source.is_dir():
        return str(outcome.source)
    folder = os.path.basename(os.path.abspath(outcome.source)) or str(outcome.source)
    shown = folder if outcome.source == Path() else outcome.source
    return f"{plural(len(outcome.parts), 'image')} of {shown}"


def _short(reason: str) -> str:
    return reason if len(reason) < 160 else f"{reason[:157]}..."


def one_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    waiting = outcome.pace.waiting
    return {
        "input": str(outcome.source),
        "status": outcome.status,
        "encoder": outcome.encoder,
        "file": None if outcome.file is None else str(outcome.file),
        "picture": outcome.picture,
        "reader": outcome.reader,
        "mpp": outcome.mpp,
        "rows": outcome.rows,
        "new": outcome.new,
        "seconds": round(outcome.seconds, 2),
        "tiles_per_second": _rate(outcome),
        "waited_for_reading": None if waiting is None else round(waiting, 3),
        "notes": outcome.notes,
        "failures": [
            {"part": f.part, "error": f.kind, "reason": f.reason} for f in outcome.failures
        ],
    }
