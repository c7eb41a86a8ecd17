"""The sets of a card: where they are had, their licences, and their overlap with the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation.report_rows import Report


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
        found = _overlap((overlap or {}).get(one.name))
        lines.append(
            f"| {name}{small}, `{one.name}` | {one.groups} | {one.licence} |"
            f" `{one.sha256[:12]}` | {found} |"
        )
    notes = [f"{s.name}: {' '.join(s.notes)}" for s in report.sets if s.notes]
    parts = [
        "## The sets of these figures",
        "\n".join(lines),
        "Hash: of the sorted list of file, label, group, split and sha256 of the file, its first"
        " digits; metrics.json has it whole. "
        + (
            "Images also trained on: counted by `python -m training.publishing.overlap`, equal"
            " pixels or nearly equal ones (64-bit difference hashes that differ in at most 2 bits),"
            " and groups with the name of a training slide."
            if overlap
            else "Overlap with the training images was not checked."
        ),
        " ".join(notes),
        _absent(report),
    ]
    return "\n\n".join(part for part in parts if part)


def _overlap(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not checked"
    equal, near, groups = (int(found[key]) for key in ("equal", "near", "groups"))
    return f"{equal} equal, {near} nearly, of {int(found['images']):,}; {groups} groups"


def _absent(report: Report) -> str:
    if not report.absent:
        return ""
    found = "; ".join(f"{a.set} ({a.verb}): {a.reason}" for a in report.absent)
    return f"Not measured: {found}."
