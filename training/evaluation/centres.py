"""How much of an embedding is the centre (hospital, scanner, archive) and how much the biology.

The robustness index is PathoROB's (Koemen et al., github.com/bifold-pathomics/PathoROB): among the
k nearest tiles of each tile, its own slide left out, SO have the same biology and another centre,
OS another biology and the same centre; the index is SO / (SO + OS), pooled over tiles. Pairs that
agree or differ in both do not enter. It needs two classes that each occur in two centres. PathoROB
fixes k for each of its sets, which have as many tiles of every class in every centre; here k is
`NEIGHBOURS`, and the index that chance gives is stated beside it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathencoder.metrics import auroc, nearest_neighbours
from training.evaluation.outcomes import Floats, Ints

NEIGHBOURS = 11  # PathoROB's k of Camelyon
_FOLDS = 5
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Counts:
    """Neighbours of each tile that agree in one of biology and centre.

    Attributes:
        same_other: Of the same biology and another centre [n].
        other_same: Of another biology and the same centre [n].
        chance: The index of neighbours that are drawn from all tiles of other slides.
    """

    same_other: Ints
    other_same: Ints
    chance: float

    def index(self, rows: Ints | None = None) -> float:
        """SO / (SO + OS) of these tiles, or of all; NaN where no neighbour is of either kind."""
        kept = slice(None) if rows is None else rows
        so, os = int(self.same_other[kept].sum()), int(self.other_same[kept].sum())
        return so / (so + os) if so + os else float("nan")


def allows_index(y: Ints, centres: Names) -> bool:
    """Whether two classes or more each occur in two centres or more."""
    per_class = [len(set(centres[y == c].tolist())) for c in np.unique(y)]
    return sum(n >= 2 for n in per_class) >= 2


def neighbour_counts(
    x: NDArray[np.float32], y: Ints, centres: Names, slides: Names, *, k: int = NEIGHBOURS
) -> Counts:
    """Count the neighbours of every tile.

    Args:
        x: Embeddings [n, D].
        y: Biological classes [n].
        centres: Centres [n].
        slides: Slides or patients [n]: tiles of the query's own are no neighbours.
        k: Number of neighbours.

    Returns:
        The counts.
    """
    # the order of cosines is that of Euclidean distances between unit vectors
    order, cosine = nearest_neighbours(x, x, k, groups=(slides, slides))
    there = cosine != -np.inf
    biology, centre = y[order] == y[:, None], centres[order] == centres[:, None]
    away = slides[:, None] != slides[None]
    same, near = y[:, None] == y[None], centres[:, None] == centres[None]
    so, os = ((a & away).sum(1) / away.sum(1).clip(1) for a in (same & ~near, ~same & near))
    return Counts(
        (biology & ~centre & there).sum(1),
        (~biology & centre & there).sum(1),
        float(so.sum() / (so.sum() + os.sum())),
    )


def centre_probabilities(x: NDArray[np.float32], centres: Names, groups: Names) -> Floats | None:
    """How a linear model tells centres from embeddings, by folds over groups.

    Args:
        x: Embeddings [n, D].
        centres: Centres [n]: classes.
        groups: Groups [n]: none is on both sides of a fold.

    Returns:
        Probabilities [n, centres] in the order of sorted centres; None where the folds cannot all
        hold every centre.
    """
    count = min(_FOLDS, len(np.unique(groups)))
    if count < 2 or len(np.unique(centres)) < 2:
        return None
    folds = list(GroupKFold(count).split(x, centres, groups))
    if any(len(np.unique(centres[a])) < len(np.unique(centres)) for a, _ in folds):
        return None
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=400, class_weight="balanced")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Floats = cross_val_predict(
            model, x.astype(np.float64), centres, cv=folds, method="predict_proba"
        )
    return found


def centre_auroc(centres: Names, probability: Floats) -> float:
    """AUROC of `centre_probabilities`: .5 where the embedding says nothing of the centre."""
    return auroc(centres, probability[:, 1] if probability.shape[1] == 2 else probability)
