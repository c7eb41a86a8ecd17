"""Classes that are in the images to evaluate on and not in those that were fitted on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads.data.pictures import PictureRow
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.dense.targets import IGNORED


def refuse_new(train: Iterable[PictureRow], held_out: Sequence[PictureRow]) -> None:
    """Refuse a held-out part with classes of cells that the train part lacks.

    Args:
        train: With points; images are not opened.
        held_out: The same.

    Raises:
        ConfigError: It has others: their cells would be left out of every score.
    """
    known = classes_of_points(train)
    if unknown := _beyond(known, held_out):
        has = f"has the classes {', '.join(sorted(known))}, not" if known else "has no cell of"
        raise ConfigError(
            f"the train part {has} {unknown}, which the part {held_out[0].part!r} has: evaluate on"
            " classes of the train part, add images with these cells to it, or find cells without"
            " their classes (cells=False, -o cells=false)"
        )


def refuse_unknown(known: Collection[str], rows: Iterable[PictureRow]) -> None:
    """Refuse to evaluate a head on cells of classes that it does not know.

    Args:
        known: The classes of the head.
        rows: With points; images are not opened.

    Raises:
        ConfigError: There are such cells.
    """
    if unknown := _beyond(known, rows):
        raise ConfigError(
            f"the head knows the classes of cells {', '.join(known)}, the data have cells of"
            f" {unknown}: give the same names in labels="
        )


def classes_of_points(rows: Iterable[PictureRow]) -> set[str]:
    """The classes of which there is a cell."""
    found = set[str]()
    for row in rows:
        _, classes = row.reading.truth(row.labels.read(row.mpp), (0, 0))  # points have no shape
        if classes is not None:
            found |= _named(classes, row.reading.names)
    return found


def notes_of_folds(
    images: Sequence[Labelled], folds: Iterable[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[str]:
    """What folds could not learn, of classes of pixels or points, as sentences.

    Args:
        images: All.
        folds: Numbers of the images that each was fitted on, and of those that it is scored on.
    """
    each = [_of_image(x) for x in images]
    points = any(x.classes is not None for x in images)
    for number, (fitted, scored) in enumerate(folds, 1):
        known = set[str]().union(*(each[i] for i in fitted))
        new = sorted(set[str]().union(*(each[i] for i in scored)) - known)
        if points and len(known) < 2:
            yield (
                f"fold {number} was fitted on cells of fewer than two classes: classes of its cells"
                " were not scored"
            )
            continue
        missed = "its cells there were not scored" if points else "its pixels there count as missed"
        for name in new:
            yield f"the class {name!r} was not known in fold {number}: {missed}"


def _of_image(x: Labelled) -> set[str]:
    numbers = x.truth if x.classes is None else x.classes
    return _named(np.unique(numbers), x.names) if x.names else set()


def _named(numbers: Iterable[int], names: Sequence[str]) -> set[str]:
    return {names[n] for n in numbers if 0 <= n < IGNORED}


def _beyond(known: Collection[str], rows: Iterable[PictureRow]) -> str:
    return ", ".join(sorted(classes_of_points(rows) - set(known)))
