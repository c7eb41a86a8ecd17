"""The figures of an evaluation as they are published: without folders of this machine."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path, PurePath

from training.evaluation.report_rows import Report

_ABSOLUTE = re.compile(r"(?<![\w:/.~-])~?/(?:[\w.@+~-]+/)*[\w.@+~-]+")


def public(report: Report, row: str, *, name: str, place: str | None) -> tuple[Report, str]:
    """The report with names in place of folders.

    Args:
        report: The figures.
        row: The encoder's row in them.
        name: The encoder's published name, for a row that is named by its folder.
        place: "owner/name" or "owner/name@tag", for the command; None: the encoder is bundled, and
            is found by its row's name.

    Returns:
        The report, and the encoder's row in it.
    """
    names = {r.name: _short(r.name) for r in report.encoders}
    names[row] = name if names[row] != row else row
    if len(set(names.values())) < len(names):  # two folders of one name
        names = {old: f"{new}-{i}" for i, (old, new) in enumerate(names.items(), 1)}
    return (
        dataclasses.replace(
            report,
            command=_command(report.command, row, names, place),
            encoders=tuple(
                dataclasses.replace(r, name=names[r.name], encoder=_short(r.encoder))
                for r in report.encoders
            ),
            results=tuple(dataclasses.replace(r, encoder=names[r.encoder]) for r in report.results),
            means=tuple(dataclasses.replace(m, encoder=names[m.encoder]) for m in report.means),
            differences=tuple(
                dataclasses.replace(d, encoder=names[d.encoder], against=names[d.against])
                for d in report.differences
            ),
            absent=tuple(
                dataclasses.replace(
                    a, encoder=names.get(a.encoder, a.encoder), reason=_without_folders(a.reason)
                )
                for a in report.absent
            ),
        ),
        names[row],
    )


def _without_folders(text: str) -> str:
    """The text with absolute paths reduced to their last part; URLs as they are."""
    return _ABSOLUTE.sub(lambda found: PurePath(found[0]).name, text)


def _command(command: str, row: str, names: dict[str, str], place: str | None) -> str:
    """The command with the encoder's published name; other folders by their last part."""
    words = []
    for word in shlex.split(command):
        name, several, value = word.partition("=")
        if place is not None and row in (word, name):
            words.append(f"{names[row]}={place}")
        elif several:
            words.append(f"{name}={_short(value)}")
        else:
            words.append(names.get(word) or _short(word))
    return shlex.join(words)


def _short(text: str) -> str:
    """The last part of a folder's path, its parent's where that is `export`; others as they are."""
    path = PurePath(text)
    if not (path.is_absolute() or text.startswith(("~", "./", "../")) or Path(text).is_dir()):
        return text
    return path.parent.name if path.name.startswith("export") and path.parent.name else path.name
