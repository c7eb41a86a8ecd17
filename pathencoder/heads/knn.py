"""Nearest neighbours by cosine; the head keeps the embeddings that it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads.folds import grouped_folds
from pathencoder.heads.rows import Floats, Ints, Rows

_KS = (5, 10, 20, 50)
_AT_ONCE = 1024  # queries, so that memory does not grow with their number


@dataclass(frozen=True)
class NeighbourOptions:
    """Options of the k-NN head.

    Attributes:
        k: Number of neighbours. None: 5, 10, 20 or 50, chosen by grouped folds.
    """

    k: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a k that is no count."""
        if self.k is not None and (not isinstance(self.k, int) or isinstance(self.k, bool)):
            raise ConfigError(f"k={self.k!r}: a whole number of neighbours, for example 20")
        if self.k is not None and self.k < 1:
            raise ConfigError(f"k={self.k!r}: 1 or more")


@dataclass(frozen=True)
class Neighbours:
    """Votes of the nearest embeddings.

    Attributes:
        rows: float32 [N, D].
        y: Their class numbers [N].
        votes: What a vote of each class counts [C].
        k: Number of neighbours.
    """

    Options: ClassVar[type] = NeighbourOptions

    rows: NDArray[np.float32]
    y: Ints
    votes: Floats
    k: int

    @classmethod
    def choose(cls, rows: Rows, options: NeighbourOptions) -> dict[str, Any]:
        """The k with the highest balanced accuracy over grouped folds; of equals the largest.

        Raises:
            ConfigError: The given k is not below the number of rows: all would vote on each image.
        """
        if options.k is not None:
            if options.k >= len(rows.y):
                raise ConfigError(
                    f"k={options.k}: of {len(rows.y)} images that are fitted on (in a fold, where"
                    " there are folds), all would vote on each image. Give a smaller k"
                )
            return {"k": options.k}
        folds = grouped_folds(rows.y, rows.groups, seed=rows.seed)
        fewest = min(len(fitted) for fitted, _ in folds)
        scores = {k: 0.0 for k in _KS if k < fewest} or {max(1, fewest // 2): 0.0}
        for fitted, held_out in folds:
            model = cls.fit(rows.take(fitted), {"k": max(scores)})
            near = model._near(rows.x[held_out])
            for k in scores:
                predicted = model._shares(near[:, :k]).argmax(1)
                scores[k] += metrics.balanced_accuracy(rows.y[held_out], predicted)
        return {"k": max(scores, key=lambda k: (scores[k], k))}

    @classmethod
    def fit(cls, rows: Rows, settings: Mapping[str, Any]) -> Neighbours:
        """Keep the rows."""
        votes = np.ones(rows.classes)
        votes[rows.y] = rows.weights
        return cls(rows.x.astype(np.float32), rows.y.astype(np.int64), votes, int(settings["k"]))

    def logits(self, x: Floats) -> Floats:
        """The log of the share of votes [N, C]; each class has one vote in all beforehand."""
        return np.asarray(np.log(self._shares(self._near(x))), np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        return {"rows": self.rows, "y": self.y, "votes": self.votes}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
    ) -> Neighbours:
        """The model that was saved."""
        return cls(arrays["rows"], arrays["y"], arrays["votes"], int(settings["k"]))

    def _near(self, x: Floats) -> Ints:
        """The numbers of the nearest rows [N, k]."""
        known = self.rows.astype(np.float64)
        parts = [
            metrics.nearest_neighbours(x[start : start + _AT_ONCE], known, self.k)[0]
            for start in range(0, len(x), _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.k), np.int64)

    def _shares(self, near: Ints) -> Floats:
        counts = np.stack([(self.y[near] == c).sum(1) for c in range(len(self.votes))], 1)
        votes = counts * self.votes + 1 / len(self.votes)
        return np.asarray(votes / votes.sum(1, keepdims=True), np.float64)
