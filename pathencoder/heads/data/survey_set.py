"""Open all images of a set, and read their labels by one rule where a file alone is ambiguous."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pathencoder.heads.data.listing import Found, counting
from pathencoder.heads.data.marks import Source
from pathencoder.heads.data.point_tables import PointRows, PointTable
from pathencoder.heads.data.survey import Facts, named, survey
from pathencoder.heads.data.truth import Kind

_NAMES = {"detection": "detections or cells", "annotation": "annotations"}
_NUMBERED = (
    "the column 'label' numbers the points and is not read as their class: call it 'class' if it"
    " is one"
)


@dataclass(frozen=True)
class Surveyed:
    """What the labels of a set hold.

    Attributes:
        rows: The images, with their labels as the whole set is read.
        facts: Of each.
        problems: What is wrong with them, as sentences.
        notes: What was assumed, as sentences.
    """

    rows: list[Found]
    facts: list[Facts]
    problems: list[str]
    notes: list[str]


def survey_set(
    rows: Sequence[Found], kind: Kind, scales: Sequence[float | None], *, classes: bool
) -> Surveyed:
    """Open every image and its labels.

    Args:
        rows: The images.
        kind: What the task learns.
        scales: Micrometres per pixel of each; None where they are not known.
        classes: The user named the classes.

    Returns:
        What they hold.
    """
    listed = list(rows)
    found = [_survey(row, kind, mpp) for row, mpp in zip(rows, scales, strict=True)]
    changed, notes = _by_one_rule(rows, [facts for facts, _ in found], kind, classes=classes)
    for i, source in changed.items():
        listed[i] = replace(rows[i], labels=source)
        found[i] = _survey(listed[i], kind, scales[i])
    problems = [problem for _, wrong in found for problem in wrong]
    return Surveyed(listed, [facts for facts, _ in found], problems, notes)


def _survey(row: Found, kind: Kind, mpp: float | None) -> tuple[Facts, list[str]]:
    if row.item is None and not os.path.isfile(row.image):  # the check of files says so
        return Facts(), []
    facts, problems = survey(row, kind, mpp)
    return facts, [named(row, problem) for problem in problems]


def _by_one_rule(
    rows: Sequence[Found], facts: Sequence[Facts], kind: Kind, *, classes: bool
) -> tuple[dict[int, Source], list[str]]:
    """The labels that the rest of the set shows to be something else, and what was assumed.

    An image without a nucleus has the annotation of its region alone, which is no nucleus; and
    few points may have classes that look like their numbers.
    """
    changed: dict[int, Source] = {}
    notes: list[str] = []
    only, other = ("annotation", "detection") if kind == "classes" else ("detection", "annotation")
    alone = [i for i, fact in enumerate(facts) if other in fact.kinds]
    if alone and any(only in fact.kinds for fact in facts):
        changed |= {i: counting(rows[i].labels, only) for i in alone}
        notes.append(
            f"{len(alone)} images have {_NAMES[other]} of QuPath alone, others {_NAMES[only]}:"
            f" {_NAMES[other]} are left out in all"
        )
    known = [i for i, fact in enumerate(facts) if fact.numbered is not None]
    numbered = all(facts[i].numbered for i in known)
    if not classes and numbered and any(facts[i].objects > 1 for i in known):
        for i in known:
            source = changed.get(i, rows[i].labels)
            if isinstance(source, PointTable | PointRows):
                changed[i] = source.without_label()
        notes.append(_NUMBERED)
    return changed, notes
