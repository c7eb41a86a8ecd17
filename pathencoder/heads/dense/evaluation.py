"""A dense head on labelled images that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import PictureRow, PictureSet, read_pictures
from pathencoder.heads.dense import known
from pathencoder.heads.dense import report as reports
from pathencoder.heads.dense.cells import CellClasses
from pathencoder.heads.dense.model import DenseModel, Labelled
from pathencoder.heads.dense.report import DenseReport
from pathencoder.heads.dense.scores import RADIUS_UM, SCORING
from pathencoder.point_metrics import Cells, class_scores

if TYPE_CHECKING:
    from pathencoder.heads.dense.head import DenseHead


def evaluate(head: DenseHead, data: Any, *, part: str | None, **given: Any) -> DenseReport:
    """Read a data set and evaluate a head on it.

    Args:
        head: The head.
        data: As for `read_pictures`.
        part: The part to evaluate. None: all images.
        **given: Of `read_pictures`.

    Returns:
        Scores, with intervals where groups are known.

    Raises:
        ConfigError: The data set has bad rows, no such part, or other classes.
    """
    stain = head.settings["stain"]
    read = read_pictures(data, task=head.kind, stain=stain, to_fit=False, **given)
    chosen = read if part is None else read.part(part)
    if head.kind == "pixels" and read.classes != head.classes:
        raise ConfigError(
            f"the head knows the classes {', '.join(head.classes)}, the data have"
            f" {', '.join(read.classes)}: give the same names in labels="
        )
    _ = head.model  # which loads the classes of cells along
    if head.cells is not None:
        known.refuse_unknown(head.cells.classes, chosen)
    return evaluated(head, chosen, part or "all images", read.notes)


def evaluated(
    head: DenseHead, pictures: PictureSet, part: str, notes: Sequence[str]
) -> DenseReport:
    """Evaluate a head on all images of a set; `part` is its name in the report."""
    model = head.model  # which loads the classes of cells along
    counts = [count(head, model, row.load(), head.cells) for row in pictures]
    return report(head, counts, pictures.rows, part, notes)


def count(head: DenseHead, fitted: DenseModel, x: Labelled, cells: CellClasses | None) -> Any:
    """What is counted of one image.

    Args:
        head: For its kind and settings.
        fitted: A model of the head.
        x: The image.
        cells: The classes of cells; None without.
    """
    found = fitted.predict(x.image, x.mpp, stain=x.stain, views=head.settings["views"])
    counts = SCORING[head.kind].count(x.truth, found, x.mpp)
    if cells is None or x.classes is None:
        return counts
    points = np.asarray(found, np.float64)[:, :2]
    names, _ = cells.predict(x.image, points, x.mpp)
    true = ["" if number < 0 else x.names[number] for number in x.classes.tolist()]
    scores = class_scores(
        [Cells(np.asarray(x.truth, np.float64), true)],
        [Cells(points, names)],
        cells.classes,
        RADIUS_UM / x.mpp,
    )
    return replace(counts, classes=scores.by_class)


def report(
    head: DenseHead,
    counts: Sequence[Any],
    rows: Sequence[PictureRow],
    part: str,
    notes: Sequence[str],
) -> DenseReport:
    """The report on counted images."""
    return reports.evaluated(
        counts,
        [row.group for row in rows],
        head=head.kind,
        encoder=head.record.label(),
        part=part,
        classes=head.classes,
        settings=head.settings,
        notes=notes,
    )
