"""Logistic regression on standardised embeddings, its C chosen by grouped folds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads.folds import grouped_folds
from pathencoder.heads.rows import Floats, Rows, Scaling

_CS = 10.0 ** np.arange(-5, 2)
_WORSE = 2  # weaker penalties that score less, after which the search ends


@dataclass(frozen=True)
class LinearOptions:
    """Options of the linear head.

    Attributes:
        c: Inverse strength of the L2 penalty. None: chosen from 1e-5 to 10 by grouped folds.
    """

    c: float | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a C that is not positive."""
        number = isinstance(self.c, int | float) and not isinstance(self.c, bool)
        if self.c is not None and not (number and 0 < self.c < math.inf):
            raise ConfigError(f"c={self.c!r}: a number above 0, for example 0.01")


@dataclass(frozen=True)
class Linear:
    """A linear classifier.

    Attributes:
        scaling: Of the embeddings.
        weight: [D, C].
        bias: [C].
    """

    Options: ClassVar[type] = LinearOptions

    scaling: Scaling
    weight: Floats
    bias: Floats

    @classmethod
    def choose(cls, rows: Rows, options: LinearOptions) -> dict[str, Any]:
        """The C with the highest balanced accuracy over grouped folds; of equals the smallest."""
        if options.c is not None:
            return {"c": float(options.c)}
        folds = grouped_folds(rows.y, rows.groups, seed=rows.seed)
        parts = [(rows.take(a), rows.take(b)) for a, b in folds]
        searches = [_Search(fitted, evaluated) for fitted, evaluated in parts]
        best, best_c, worse = -1.0, float(_CS[0]), 0
        for c in _CS:
            score = float(np.mean([search.score(float(c)) for search in searches]))
            if score > best:
                best, best_c, worse = score, float(c), 0
            elif score < best:
                worse += 1
            if worse >= _WORSE:
                break
        return {"c": best_c}

    @classmethod
    def fit(cls, rows: Rows, settings: Mapping[str, Any]) -> Linear:
        """Fit with a given C."""
        scaling = Scaling.of(rows.x)
        model = _regression(settings["c"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence: the figures of the folds say enough
            model.fit(scaling(rows.x), rows.y, sample_weight=rows.weights)
        weight, bias = np.asarray(model.coef_).T, np.asarray(model.intercept_)
        if len(bias) == 1:  # two classes: the margin of the second
            weight = np.concatenate([-weight / 2, weight / 2], 1)
            bias = np.concatenate([-bias / 2, bias / 2])
        return cls(scaling, np.ascontiguousarray(weight, np.float64), bias.astype(np.float64))

    def logits(self, x: Floats) -> Floats:
        """Scores [N, C]."""
        return np.asarray(self.scaling(x) @ self.weight + self.bias, np.float64)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved."""
        return {
            "mean": self.scaling.mean,
            "scale": self.scaling.scale,
            "weight": self.weight,
            "bias": self.bias,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Linear:
        """The model that was saved."""
        scaling = Scaling(arrays["mean"], arrays["scale"])
        return cls(scaling, arrays["weight"], arrays["bias"])


class _Search:
    """One fold: fits from strong to weak penalties, each starting from the one before."""

    def __init__(self, fitted: Rows, evaluated: Rows) -> None:
        scaling = Scaling.of(fitted.x)
        self._fitted, self._evaluated = fitted, evaluated
        self._x, self._held_out = scaling(fitted.x), scaling(evaluated.x)
        self._model = _regression(1.0, warm=True)

    def score(self, c: float) -> float:
        """Balanced accuracy on the fold."""
        self._model.set_params(C=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no convergence at weak penalties
            self._model.fit(self._x, self._fitted.y, sample_weight=self._fitted.weights)
        return metrics.balanced_accuracy(self._evaluated.y, self._model.predict(self._held_out))


def _regression(c: float, *, warm: bool = False) -> Any:
    """The regression of the probe protocol; the search and the last fit stop at one tolerance."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=400, tol=1e-3, warm_start=warm)
