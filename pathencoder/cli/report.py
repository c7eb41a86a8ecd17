"""The end of a run: what became of every input, failures.csv, and the exit status."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathencoder.cli.common import duration, plural
from pathencoder.slides.files import whole_file
from pathencoder.slides.work import Outcome

FAILURES = "failures.csv"
_SHOWN = 5
_FATES = {
    "done": "done",
    "empty": "no tissue found",
    "before": "done before",
    "busy": "left to another process",
    "failed": "failed",
    "stopped": "not finished",
    "unreached": "not reached",
}


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 all well, 3 some inputs or parts of inputs failed, 1 nothing could be done."""
    failed = [o for o in outcomes if o.fate == "failed"]
    if failed and len(failed) == len(outcomes):
        return 1
    return 3 if failed or any(o.failures for o in outcomes) else 0


def write_failures(out: Path, outcomes: Sequence[Outcome]) -> Path | None:
    """failures.csv with a row for each input or part that failed: input, part, error, reason. No failures: no file, an older one goes."""
    path = out / FAILURES
    rows = [[str(o.source), f.part, f.kind, f.reason] for o in outcomes for f in o.failures]
    if not rows:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["input", "part", "error", "reason"], *rows])
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def as_json(outcomes: Sequence[Outcome], *, encoder: str, out: Path, failures: Path | None, status: int) -> dict[str, Any]:
    """The summary for programs."""
    return {"encoder": encoder, "out": str(out), "status": status, "failures": failures, "inputs": [_one_json(o) for o in outcomes]}


def summary(outcomes: Sequence[Outcome], *, encoder: str, out: Path, failures: Path | None, feature: str = "features") -> str:
    """The summary for people: every input and its fate, what was written, and how to read it."""
    lines = [line for outcome in outcomes for line in _lines(outcome)]
    counts = Counter(o.fate for o in outcomes)
    fates = ", ".join(f"{counts[fate]} {word}" for fate, word in _FATES.items() if counts[fate])
    rows = sum(o.rows for o in outcomes)
    lines.append(f"{plural(len(outcomes), 'input')}: {fates}. {plural(rows, 'embedding')} by {encoder} in {out}")
    if failures:
        lines.append(f"What failed, and why: {failures}")
    example = next((o.file for o in outcomes if o.file and o.rows), None)
    if example:
        lines += ["Read them:", "  import h5py", f'  rows = h5py.File("{example.as_posix()}")["{feature}"][:]']
    return "\n".join(lines)


def _lines(outcome: Outcome) -> list[str]:
    parts = [f"{outcome.source}: {_FATES[outcome.fate]}"]
    if outcome.fate in ("done", "before"):
        parts.append(plural(outcome.rows, "embedding"))
    if outcome.fate == "done":
        parts.append(duration(outcome.seconds))
    if outcome.file:
        parts.append(f"-> {outcome.file}")
    whole = [f for f in outcome.failures if not f.part]
    bad = [f for f in outcome.failures if f.part]
    lines = [", ".join(parts + outcome.notes)] + [f"    {f.reason.removeprefix(f'{outcome.source}: ')}" for f in whole]
    if bad:
        lines.append(f"    {len(bad)} could not be read:")
        lines += [f"    {f.part}: {_short(f.reason)}" for f in bad[:_SHOWN]]
        lines += [f"    and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    return lines


def _short(reason: str) -> str:
    return reason if len(reason) < 160 else f"{reason[:157]}..."


def _one_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.source),
        "fate": outcome.fate,
        "file": outcome.file,
        "rows": outcome.rows,
        "new": outcome.new,
        "seconds": round(outcome.seconds, 2),
        "notes": outcome.notes,
        "failures": [{"part": f.part, "error": f.kind, "reason": f.reason} for f in outcome.failures],
    }
