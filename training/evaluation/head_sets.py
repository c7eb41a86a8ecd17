"""The labelled sets of the table of heads, and how each is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from pathencoder.errors import ConfigError
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.dense.scores import SCORING, point_counts, pooled_points
from pathencoder.images import open_image
from pathencoder.point_metrics import Cells, class_scores, class_share, given_point_scores
from training.evaluation.annotations import Picture, open_labels, read_pictures, read_points

FOLDS = 4


@dataclass(frozen=True)
class HeadSet:
    """A labelled set of the dense heads.

    Attributes:
        name: Its folder below nuclei/.
        task: Of the head: a name in `pathencoder.heads.dense.tasks.TASKS`.
        mpp: Its own scale where its table states none, um/px.
        test: The part that is reported; "" where it is reported by folds over groups.
        train: The part that is trained on.
        radius: Points match within it, in pixels of the images: usually 6 at 20x, 12 at 40x.
        stain: "he" or "ihc".
        classes: Of points; those of other names, as "unclassified", count as of no known class.
        positive: The class whose share of the cells is scored; "" where none is.
    """

    name: str
    task: str
    mpp: float
    test: str = "test"
    train: str = "train"
    radius: float = 6.0
    stain: str = "he"
    classes: tuple[str, ...] = ()
    positive: str = ""


SETS = {
    s.name: s
    for s in (
        HeadSet("glas", "glands", 0.62, test="testA"),
        HeadSet("monuseg", "nuclei", 0.25),
        HeadSet("dsb2018_histology", "nuclei", 0.5, test="", train="all"),
        HeadSet(
            "crchisto",
            "points",
            0.5,
            classes=("epithelial", "fibroblast", "inflammatory", "others"),
        ),
        HeadSet(
            "consep20x_points", "points", 0.5, classes=("epithelial", "inflammatory", "spindle")
        ),
        HeadSet(
            "brca_m2c", "points", 0.5, test="val", classes=("inflammatory", "stromal", "tumour")
        ),
        HeadSet(
            "bcdata_sample",
            "points",
            0.25,
            test="",
            train="test",
            radius=12.0,
            stain="ihc",
            classes=("negative", "positive"),
            positive="positive",
        ),
    )
}


def rows_of(s: HeadSet, data: Path, *, choose: bool) -> list[Picture]:
    """The images of a set, from its meta.csv.

    Args:
        s: The set.
        data: Folder with nuclei/.
        choose: Images of the train part alone.

    Returns:
        The images, in the order of the table.

    Raises:
        ConfigError: The table is missing, lacks a column, or has no rows of these parts.
    """
    parts = (s.train,) if choose or not s.test else (s.train, s.test)
    return read_pictures(data / "nuclei" / s.name, parts, s.mpp)


def folds_of(
    s: HeadSet, rows: Sequence[Picture], *, choose: bool, apart: bool = False
) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs of rows to fit on and rows to score.

    Folds are grouped by patient or slide. A set's own parts are taken as they are: in some, as
    GlaS and BRCA-M2C, patients of the test part recur in the train part.

    Args:
        s: The set.
        rows: Of `rows_of`.
        choose: By folds inside the train part; else on the test part, if the set has one.
        apart: Leave out the rows of the train part whose patient is in the test part too.

    Raises:
        ConfigError: No row of the train part is left.
    """
    if s.test and not choose:
        score = [i for i, row in enumerate(rows) if row.split == s.test]
        seen = {rows[i].group for i in score} if apart else set()
        fit = [i for i, row in enumerate(rows) if row.split == s.train and row.group not in seen]
        if not fit:
            raise ConfigError(f"{s.name}: every patient of the train part is in the test part too")
        yield fit, score
        return
    groups = [row.group for row in rows]
    for fit, score in GroupKFold(min(FOLDS, len(set(groups)))).split(groups, groups=groups):
        yield fit.tolist(), score.tolist()


def labelled(s: HeadSet, row: Picture) -> Labelled:
    """An image with its labels, or its points and their classes.

    Raises:
        ImageError: The image or its label map cannot be read.
        ConfigError: Its table of points cannot be read.
    """
    image = open_image(row.file)
    if s.task != "points":
        return Labelled(image, open_labels(row.file), row.mpp, s.stain, row.group)
    points, names = read_points(row.file)
    number_of = {name: number for number, name in enumerate(s.classes)}
    numbers = np.array([number_of.get(name, -1) for name in names], np.int64)
    return Labelled(image, points, row.mpp, s.stain, row.group, numbers, s.classes)


@dataclass(frozen=True)
class CellLabels:
    """The classes of the points of an image.

    Attributes:
        true: Of the true points, "" where none is known.
        given: Predicted at the true points.
        found: Predicted at the points that were found.
    """

    true: Sequence[str]
    given: Sequence[str]
    found: Sequence[str]


@dataclass(frozen=True)
class Pair:
    """What is true of an image and what was found, in its own pixels.

    Attributes:
        true: Labels or points.
        found: Labels or points.
        mpp: Micrometres per pixel.
        labels: The classes of points. None: they were not predicted.
    """

    true: NDArray[np.generic]
    found: NDArray[np.generic]
    mpp: float
    labels: CellLabels | None = None


def scores(s: HeadSet, pairs: Sequence[Pair]) -> dict[str, float]:
    """The scores of a set.

    Args:
        s: The set.
        pairs: Of its images.

    Returns:
        Of glands, the challenge's sums and the pixels' Dice pooled; of nuclei, means over images;
        of points, counts pooled over the images, but for `share_error`: the mean over images.
    """
    if s.task != "points":
        scoring = SCORING[s.task]
        return scoring.pool([scoring.count(p.true, p.found, p.mpp) for p in pairs], ())
    detected = pooled_points([point_counts(p.true, p.found, s.radius) for p in pairs])
    return detected | _class_scores(s, pairs)


def _class_scores(s: HeadSet, pairs: Sequence[Pair]) -> dict[str, float]:
    """F1 of classes at true and at found points, and the error of a share in points of 100."""
    labelled = [(p, p.labels) for p in pairs if p.labels is not None]
    if not labelled:
        return {}
    given = given_point_scores(
        [name for _, x in labelled for name in x.true],
        [name for _, x in labelled for name in x.given],
        s.classes,
    )
    at_found = class_scores(
        [Cells(np.asarray(p.true, np.float64), x.true) for p, x in labelled],
        [Cells(np.asarray(p.found, np.float64)[:, :2], x.found) for p, x in labelled],
        s.classes,
        s.radius,
    )
    result = {
        "class_f1_weighted": given.weighted_f1,
        "class_f1_mean": given.mean_f1,
        "found_class_f1_weighted": at_found.weighted_f1,
        "found_class_f1_mean": at_found.mean_f1,
    }
    if s.positive:
        shares = [
            [class_share(part, s.positive, s.classes) for part in (x.true, x.found)]
            for _, x in labelled
        ]
        apart = [abs(t - f) for t, f in shares if not np.isnan(t)]
        # an image where nothing was found has no share: the largest error
        result["share_error"] = 100 * float(np.mean(np.nan_to_num(apart, nan=1.0)))
        pooled = [
            class_share([n for _, x in labelled for n in getattr(x, k)], s.positive, s.classes)
            for k in ("true", "found")
        ]
        result["share_error_pooled"] = 100 * abs(pooled[0] - pooled[1])
    return result
