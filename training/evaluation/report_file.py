"""The JSON that `python -m training.evaluate all` writes: every figure, and what repeats it.

A figure is one `Result`: one encoder, one set, one metric. The rows are flat: cards, tables and
plots select what they need (`Report.find`). Baselines are encoders as all others. The classes are
in `report_rows`, the metrics in `metric_names`.

| part of the file | content |
|---|---|
| format, schema, date, command, packages | what the file is, and how it is made again |
| encoders | a row of the tables each: weights, readout, preprocessing; the baselines too |
| sets | what the figures are measured on, with the hash of the labels and images |
| results | the figures |
| means, differences | means over sets; paired differences to a baseline |
| absent | sets and verbs without figures, and why |
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pathencoder.errors import ConfigError
from training.evaluation.metric_names import METRICS
from training.evaluation.report_rows import FORMAT, SCHEMA, Difference, Mean, Report, Result
from training.files import write_text

_REPORT = TypeAdapter(Report)
# not the second part of a/b or of https://
_ABSOLUTE = re.compile(r"(?<![\w.:/~])/[^\s'\",;:()/]+(?:/[^\s'\",;:()/]+)+")


def write_report(path: Path, report: Report) -> None:
    """Write the file, whole or not at all.

    Args:
        path: The file, in an existing folder.
        report: Its content.

    Raises:
        ConfigError: The content is not valid: a result of an encoder that is not in the file, or a
            value that is no number.
        StoreError: The file cannot be written.
    """
    text = json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False) + "\n"
    parse_report(text, str(path))
    write_text(path, text)


def without_places(text: str) -> str:
    """A text whose absolute paths are relative to the working folder, or names outside it."""

    def short(found: re.Match[str]) -> str:
        place = Path(found[0])
        here = place.is_relative_to(Path.cwd())
        return str(place.relative_to(Path.cwd())) if here else place.name

    return _ABSOLUTE.sub(short, text)


def read_report(path: Path) -> Report:
    """Read the file.

    Args:
        path: What `write_report` wrote.

    Returns:
        Its content.

    Raises:
        ConfigError: It cannot be read or is not valid; the message names the first faults.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_report(text, str(path))


def parse_report(text: str, where: str = "the evaluation") -> Report:
    """The content of a file's text.

    Args:
        text: JSON.
        where: The file, for messages.

    Raises:
        ConfigError: It is not valid; the message names the first faults.
    """
    try:
        values: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON: {error}. Measure again: {_AGAIN}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ConfigError(f"{where} is no evaluation (format {FORMAT!r}). Make one: {_AGAIN}")
    if values.get("schema") != SCHEMA:
        raise ConfigError(
            f"{where} is of schema {values.get('schema')!r}, this version reads {SCHEMA}."
            f" Update pathencoder, or measure again: {_AGAIN}"
        )
    try:
        report = _REPORT.validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_faults(error)}. Measure again: {_AGAIN}") from error
    if faults := list(_contradictions(report)):
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ConfigError(f"{where}: {'; '.join(faults[:3])}{more}. Measure again: {_AGAIN}")
    return report


_AGAIN = "python -m training.evaluate all ENCODER --out FOLDER"


def _faults(error: ValidationError) -> str:
    found = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _contradictions(report: Report) -> Iterable[str]:
    """What the types do not show: unknown names, rows twice, values without a reason."""
    yield from _twice("encoder", [e.name for e in report.encoders])
    yield from _twice("set", [s.name for s in report.sets])
    encoders, sets = {e.name for e in report.encoders}, {s.name for s in report.sets}
    seen: set[tuple[str, ...]] = set()
    for r in report.results:
        key = (r.encoder, r.set, r.part, r.verb, r.metric, r.condition)
        label = " ".join(filter(None, key))
        if key in seen:
            yield f"two results of {label}"
        seen.add(key)
        if r.encoder not in encoders:
            yield f"a result of the encoder {r.encoder!r}, which is no row of encoders"
        if r.set not in sets:
            yield f"a result of the set {r.set!r}, which is no row of sets"
        if r.value is None and not r.notes:
            yield f"no value and no note that says why: {label}"
        if r.interval and r.interval.low > r.interval.high:
            yield f"an interval from {r.interval.low} to {r.interval.high}: {label}"
    for name in dict.fromkeys(x.metric for x in _measured(report)):
        if name not in METRICS:
            yield f"unknown metric {name!r}; there are {', '.join(METRICS)}"
    for d in report.differences:
        yield from (
            f"a difference of the encoder {name!r}, which is no row of encoders"
            for name in (d.encoder, d.against)
            if name not in encoders
        )


def _measured(report: Report) -> Sequence[Result | Mean | Difference]:
    return (*report.results, *report.means, *report.differences)


def _twice(what: str, names: Sequence[str]) -> Iterable[str]:
    return [f"two rows of the {what} {n!r}" for n in dict.fromkeys(names) if names.count(n) > 1]
