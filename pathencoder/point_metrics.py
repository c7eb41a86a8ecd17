"""Scores of cells that have a place and a class: detection, classes and their shares.

Counts are pooled over all images of a set; means over images give other figures. A found cell of a
class is a hit where it matches a true cell of the same class, one to one, within a radius.
Abousamra et al., "Multi-Class Cell Detection Using Spatial Context Representation", ICCV 2021,
score BRCA-M2C and CoNSeP so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.matching import match_points
from pathencoder.metrics import DetectionScores

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Cells:
    """The cells of one image.

    Attributes:
        points: x and y in pixels [N, 2].
        labels: The class of each; "" where it is not known.
    """

    points: Floats
    labels: Sequence[str]

    def __post_init__(self) -> None:
        """Raises ConfigError where points and labels differ in number."""
        if len(self.points) != len(self.labels):
            raise ConfigError(
                f"{len(self.points)} points and {len(self.labels)} labels: give one label a point"
            )

    def of(self, label: str) -> Floats:
        """The points of one class [M, 2]."""
        chosen = np.array([one == label for one in self.labels], bool)
        points: Floats = np.asarray(self.points)[chosen]
        return points


@dataclass(frozen=True)
class ClassScores:
    """Scores of the classes of a set of images.

    Attributes:
        by_class: Precision, recall, F1 and counts of each class.
    """

    by_class: dict[str, DetectionScores]

    @property
    def mean_f1(self) -> float:
        """F1, every class alike; classes that neither occur nor were found are left out."""
        return float(
            np.mean([s.f1 for s in self.by_class.values() if s.true + s.predicted] or [np.nan])
        )

    @property
    def weighted_f1(self) -> float:
        """F1, classes weighted by their true cells."""
        weights = np.array([s.true for s in self.by_class.values()], float)
        values = np.array([s.f1 for s in self.by_class.values()])
        return float((weights * values).sum() / weights.sum()) if weights.any() else float("nan")


def class_scores(
    true: Sequence[Cells], found: Sequence[Cells], classes: Sequence[str], radius: float
) -> ClassScores:
    """Score the classes of found cells.

    Args:
        true: Of every image. Cells of other classes than `classes` are of no known class: found
            cells that match one of them count neither for nor against a class.
        found: Of the same images.
        classes: The classes that are scored.
        radius: Largest distance of a match, in pixels.

    Returns:
        The scores of each class, counts pooled over the images.
    """
    counts = np.zeros((len(classes), 3), int)
    for t, f in zip(true, found, strict=True):
        f = _without_unknown(t, f, classes, radius)
        for row, label in enumerate(classes):
            ours, theirs = t.of(label), f.of(label)
            hits = len(match_points(ours, theirs, radius))
            counts[row] += (hits, len(theirs), len(ours))
    return ClassScores(
        {
            label: DetectionScores.of(*(int(n) for n in row))
            for label, row in zip(classes, counts, strict=True)
        }
    )


def given_point_scores(
    truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]
) -> ClassScores:
    """Score predicted classes of given cells.

    Args:
        truth: The class of every cell [N]; cells of other classes than `classes` are left out.
        predicted: What was predicted [N].
        classes: The classes that are scored.

    Returns:
        The scores of each class.
    """
    known = np.isin(np.asarray(truth, str), classes)
    t, p = np.asarray(truth, str)[known], np.asarray(predicted, str)[known]
    return ClassScores(
        {
            c: DetectionScores.of(
                int(((t == c) & (p == c)).sum()), int((p == c).sum()), int((t == c).sum())
            )
            for c in classes
        }
    )


def class_share(labels: Sequence[str], positive: str, classes: Sequence[str]) -> float:
    """The share of one class among the cells of `classes`; NaN without such cells.

    With positive and negative nuclei of Ki67 it is the labelling index.
    """
    of_interest = [label for label in labels if label in classes]
    if not of_interest:
        return float("nan")
    return sum(label == positive for label in of_interest) / len(of_interest)


def _without_unknown(true: Cells, found: Cells, classes: Sequence[str], radius: float) -> Cells:
    """Found cells but for those that match a true cell of no known class."""
    unknown = np.array([label not in classes for label in true.labels], bool)
    if not unknown.any() or not len(found.points):
        return found
    pairs = match_points(true.points, found.points, radius)
    drop = set(pairs[unknown[pairs[:, 0]], 1].tolist())
    keep = [i for i in range(len(found.points)) if i not in drop]
    return Cells(np.asarray(found.points)[keep], [found.labels[i] for i in keep])
