"""Check a manifest that a person may have edited: every problem in one list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pathencoder.errors import ConfigError
from pathencoder.text import counted
from training.archive.privacy import is_code, is_personal
from training.archive.row import COLUMNS, EDITABLE, FIELDS, Row, as_text, nearest_column

_SHOWN = 100  # problems in a message
_NAMED = 5  # slides in a line

Texts = Mapping[str, Sequence[str]]  # column -> the text of every row
Where = Callable[[int], str]  # row -> file and line


def refuse(file: Path, problems: Sequence[str]) -> None:
    """Raise ConfigError with all problems, if there are any.

    Args:
        file: The manifest.
        problems: A sentence each.
    """
    if not problems:
        return
    shown = [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  and {len(problems) - _SHOWN} more")
    count = counted(len(problems), "problem")
    raise ConfigError(
        "\n".join([f"{file}: {count}. Correct the table and run the command again", *shown])
    )


def is_waiting(row: Row) -> bool:
    """Whether a row has a patient that a person typed, and that no run of `manifest` took in.

    It is then a number in the clear, or has no split: that of its patient is not known yet. A split
    that a person emptied is no such case.
    """
    typed = bool(row.patient) and not is_code(row.patient)
    return typed or (not row.split and "split" not in row.edits)


def refuse_waiting(rows: Sequence[Row]) -> None:
    """Raise ConfigError where rows wait for a run of `manifest`.

    Args:
        rows: Of a manifest, whose patients and splits are to be written elsewhere.
    """
    if waiting := [row for row in rows if is_waiting(row)]:
        raise ConfigError(
            f"{counted(len(waiting), 'slide has', 'slides have')} another patient since the last"
            f" run of manifest ({_slides(waiting)}), and no code or split for it yet. Take the"
            " edits in first: python -m training.archive manifest --out MANIFEST"
        )


def rows_of(columns: Texts, count: int, where: Where) -> tuple[list[Row], list[str]]:
    """Read a manifest's rows from texts.

    Args:
        columns: The text of every value.
        count: Number of rows.
        where: The place of a row, for messages.

    Returns:
        The rows, and what is wrong. A wrong value is read as missing.
    """
    problems = _column_problems(columns)
    values: dict[str, list[Any]] = {}
    for column in FIELDS:
        texts = columns.get(column.name)
        if texts is None:
            values[column.name] = [column.default] * count
            continue
        read, default = column.metadata["read"], column.default
        values[column.name], wrong = _read(texts, read, default)
        problems += [
            f"{where(i)}: {column.name} is {texts[i]!r}: {why}" for i, why in wrong[:_SHOWN]
        ]
    names = [values[name] for name in COLUMNS]
    return [Row(*fields) for fields in zip(*names, strict=True)], problems


def _column_problems(columns: Texts) -> list[str]:
    missing = [name for name in COLUMNS if name not in columns]
    problems = [f"the column {name!r} is missing: restore it" for name in missing]
    for name in columns:
        if name in COLUMNS:
            continue
        if is_personal(name):
            problems.append(
                f"the column {name!r} describes a person: remove it, a manifest has none of these"
            )
        else:
            problems.append(
                f"the column {name!r} is not known{nearest_column(name)}: remove it (the column"
                " 'note' takes free text)"
            )
    return problems


def _read(
    texts: Sequence[str], read: Callable[[str], Any], default: object
) -> tuple[list[Any], list[tuple[int, str]]]:
    """The values, and (row, what is wrong). Each different text is read once."""
    known: dict[str, tuple[Any, str]] = {}
    out, wrong = [], []
    for i, text in enumerate(texts):
        found = known.get(text)
        if found is None:
            try:
                found = (read(text), "")
            except ValueError as error:
                found = (default, str(error))
            known[text] = found
        out.append(found[0])
        if found[1]:
            wrong.append((i, found[1]))
    return out, wrong


def problems_between(rows: Sequence[Row], where: Where) -> list[str]:
    """What is wrong between rows: names twice, patients in two splits, evaluation sets in use."""
    problems = [f"{where(i)}: the row has no slide" for i, row in enumerate(rows) if not row.slide]
    for what, keys in (
        ("the slide {}", Counter(row.slide.casefold() for row in rows if row.slide)),
        ("the row of {}", Counter(" ".join(row.key) for row in rows)),
    ):
        problems += [
            f"{what.format(repr(key))} is there {count} times: keep one"
            for key, count in keys.items()
            if count > 1
        ]
    splits: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.patient and row.split:
            splits.setdefault(row.patient, {}).setdefault(row.split, row.slide)
    problems += [  # without the patient, which may be a number that a person typed
        f"a patient is in {len(parts)} splits ({_listed(parts)}): give all slides of a patient one"
        " split"
        for parts in splits.values()
        if len(parts) > 1
    ]
    problems += [
        f"{where(i)}: the slide {row.slide!r} belongs to an evaluation set ({row.excluded}) and has"
        " use=1: set it to 0"
        for i, row in enumerate(rows)
        if row.excluded and row.use
    ]
    return problems


def edited(
    before: Sequence[Row], after: Sequence[Row], *, accept_removed: bool = False
) -> tuple[list[Row], list[str], int]:
    """The rows after a person's edits, each with the columns that were edited.

    Args:
        before: As the tool wrote them.
        after: As they are now.
        accept_removed: Rows that were removed come back with use=0, which is no problem then.

    Returns:
        The rows, what is wrong, and the number of rows that a person changed.
    """
    known, seen = {row.key: row for row in before}, set[tuple[str, str]]()
    problems, rows, changed = list[str](), list[Row](), 0
    for row in after:
        old = known.get(row.key)
        seen.add(row.key)
        if old is None:
            problems.append(
                f"the row of slide {row.slide!r} was added, or its src or source_id changed: name"
                " its folder as a SOURCE instead, and set columns afterwards"
            )
            continue
        names = [name for name in COLUMNS if getattr(row, name) != getattr(old, name)]
        fixed = [name for name in names if name not in EDITABLE]
        if fixed:
            problems.append(
                f"the slide {old.slide!r}: {', '.join(fixed)} cannot be edited (it was"
                f" {', '.join(as_text(getattr(old, n)) or 'empty' for n in fixed)}): restore it"
            )
        changed += bool(names)
        rows.append(_marked(row, names) if names else row)
    gone = [row for row in before if row.key not in seen]
    if gone and accept_removed:
        rows += [_marked(replace(row, use=False), ["use"]) for row in gone]
    elif gone:
        rows_were = counted(len(gone), "row was", "rows were")
        problems.append(
            f"{rows_were} removed ({_slides(gone)}): restore them and set use to 0, or give"
            " --accept-removed, which does so"
        )
    return rows, problems, changed + (len(gone) if accept_removed else 0)


def _marked(row: Row, names: Iterable[str]) -> Row:
    """The row with these columns in `edited`, and what follows from an edit."""
    edits = row.edits | set(names)
    stated = {f"{name}@table" for name in row.stated - edits}
    marked = replace(row, edited=" ".join(sorted(edits | stated)))
    if "mpp_value" in names:
        marked = replace(marked, mpp_from="given" if row.mpp_value else "")
    if "patient" in names and "split" not in marked.edits:
        marked = replace(marked, split="")  # that of its new patient, by the next run
    if "stain_class" in names:
        sure = None if row.stain_class == "unknown" else 1.0
        marked = replace(marked, stain_from="given", stain_confidence=sure)
    return marked


def _listed(parts: Mapping[str, str]) -> str:
    """Each split with one of its slides."""
    return ", ".join(f"{split}: {slide}" for split, slide in sorted(parts.items()))


def _slides(rows: Sequence[Row]) -> str:
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(row.slide for row in rows[:_NAMED]) + more
