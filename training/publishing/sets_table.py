"""The sets of a card: where they are had, their licences, and their overlap with the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.report_rows import Report

_COUNTED = (
    "Images also trained on: equal pixels, or nearly equal ones (64-bit difference hashes that"
    " differ in at most 2 bits), and groups with the name of a training slide or of the same"
    " patient of TCGA; held out: outside the train part. A tile that is a part of a larger image"
    " is found by its group alone."
)


def sets(report: Report, overlap: Mapping[str, Any] | None) -> str:
    """The section of the sets.

    Args:
        report: The figures.
        overlap: What `training.publishing.overlap` found, by set; None: it was not run.
    """
    lines = ["| set | groups | licence | hash | images also trained on |", "|---" * 5 + "|"]
    for one in report.sets:
        title = one.title or one.name
        name = f"[{title}]({one.homepage})" if one.homepage else title
        small = " (a sample of it)" if one.small else ""
        known_as = f", `{one.name}`" if title != one.name else ""
        found = _overlap((overlap or {}).get(one.name))
        lines.append(
            f"| {name}{small}{known_as} | {one.groups} | {one.licence} |"
            f" `{one.sha256[:12]}` | {found} |"
        )
    parts = [
        "### The sets of these figures",
        "\n".join(lines),
        "Hash: the first digits of the sha256 of the sorted list of file, label, group, split and"
        " sha256 of each file; metrics.json has it whole. "
        + (
            f"{_COUNTED} Counted by `python -m training.publishing.overlap`."
            if overlap
            else "Overlap with the training images was not checked."
        ),
        _notes(report),
        _absent(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _notes(report: Report) -> str:
    """What a reader of the figures should know: each note once, with its sets."""
    by_note: dict[str, list[str]] = {}
    for one in report.sets:
        for note in one.notes:
            by_note.setdefault(note, []).append(one.name)
    return "\n".join(f"- {', '.join(names)}: {note}" for note, names in by_note.items())


def overlap_alone(overlap: Mapping[str, Any], command: str) -> str:
    """The section of the overlap, where no table of sets has it.

    Args:
        overlap: What `training.publishing.overlap` found, by set.
        command: That repeats it.
    """
    lines = ["| set | images also trained on |", "|---|---|"]
    lines += [f"| {name} | {_overlap(found)} |" for name, found in overlap.items()]
    return (
        "## Overlap with the sets\n\n" + "\n".join(lines) + f"\n\n{_COUNTED} Command: `{command}`."
    )


def _overlap(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not checked"
    equal, near, groups = (int(found[key]) for key in ("equal", "near", "groups"))
    named = bool(found.get("named_groups", 1))
    words = (
        f"{equal} equal, {near} nearly, of {int(found['images']):,};"
        f" {f'{groups} groups' if named else 'groups have no names'}"
    )
    if "held_out" not in found:
        return words
    inside, shared = int(found["held_out_found"]), int(found["held_out_groups"])
    of_groups = f"; {shared} groups" if named else ""
    return f"{words}. Held out: {inside} of {int(found['held_out']):,}{of_groups}"


def _absent(report: Report) -> str:
    if not report.absent:
        return ""
    found = "; ".join(f"{a.set} ({a.verb}): {a.reason}" for a in report.absent)
    return f"Not measured: {found}."
