"""Logistic regression of many positions, solved to its optimum in a few passes over them.

The features of a pyramid are strongly correlated: plain L-BFGS has not converged after hundreds of
steps. Here it works in coordinates in which the curvature is about the same in all directions, by
the Cholesky factor of their covariance. The objective is that of scikit-learn's
`LogisticRegression`, and so is the meaning of C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from pathencoder.errors import ConfigError

Floats = NDArray[np.float64]
MOST_STEPS = 200
# Of the gradient's largest component, in the coordinates of the solver, in which curvatures are
# about 1: the loss is then within 1e-6 of its least. The solver tries for a tenth of it and may end
# between the two, where features of 32 bits allow no better step.
TOLERANCE = 1e-4
_ROWS_A_FEATURE = 20  # enough for a covariance that only has to be about right
_LEAST_SD = 1e-6  # a constant feature is left at zero


@dataclass(frozen=True)
class Regression:
    """A fitted regression of unscaled features.

    Attributes:
        weights: [C].
        bias: Of the logit.
        converged: The optimum was reached; False: the steps ran out.
        steps: Of the solver.
    """

    weights: Floats
    bias: float
    converged: bool
    steps: int


def fit(x: NDArray[np.float32], y: NDArray[np.bool_], cs: Sequence[float]) -> list[Regression]:
    """Fit one regression for each C, each starting from the one before.

    Args:
        x: Features [N, C]. They are standardised here, in place: the array is used up.
        y: Classes [N].
        cs: Inverse strengths of the L2 penalty, best from small to large.

    Returns:
        A regression for each C.

    Raises:
        ConfigError: Features are not finite, or `y` has one class alone.
    """
    if not np.isfinite(x).all():
        raise ConfigError("the feature maps hold NaN or infinity: the encoder is broken")
    if y.all() or not y.any():
        kind = "only" if y.all() else "no"
        raise ConfigError(f"the training images show {kind} labelled objects: nothing to separate")
    mean, sd = x.mean(0, dtype=np.float64), np.maximum(x.std(0, dtype=np.float64), _LEAST_SD)
    x -= mean.astype(np.float32)
    x /= sd.astype(np.float32)
    problem = _Problem(x, y)
    start, found = np.zeros(x.shape[1] + 1), []
    for c in cs:
        start, converged, steps = problem.solve(c, start)
        weights = start[:-1] / sd
        found.append(Regression(weights, float(start[-1] - weights @ mean), converged, steps))
    return found


class _Problem:
    """Standardised features and classes."""

    def __init__(self, x: NDArray[np.float32], y: NDArray[np.bool_]) -> None:
        self._x, self._y = x, y.astype(np.float64)
        some = x[:: max(1, len(x) // (_ROWS_A_FEATURE * x.shape[1]))]
        share = float(self._y.mean())
        self._spread = share * (1 - share)  # curvature of the loss where all logits are alike
        self._curvature = (some.T @ some).astype(np.float64) * (self._spread / len(some))

    def solve(self, c: float, start: Floats) -> tuple[Floats, bool, int]:
        """Weights and bias [C + 1] of the least mean loss, whether they converged, and steps."""
        penalty = 1 / (c * len(self._x))
        # weights are `upper^-1 u` and the bias `b / sd`, where (u, b) is what the solver varies
        upper = cholesky(self._curvature + penalty * np.eye(len(self._curvature)))
        sd = self._spread**0.5

        def loss(point: Floats) -> tuple[float, Floats]:
            weights, bias = solve_triangular(upper, point[:-1]), point[-1] / sd
            logits = (self._x @ weights.astype(np.float32)).astype(np.float64) + bias
            wrong = expit(logits) - self._y
            value = np.logaddexp(0, logits) - self._y * logits
            slope = (wrong.astype(np.float32) @ self._x).astype(np.float64) / len(self._x)
            gradient = solve_triangular(upper, slope + penalty * weights, trans="T")
            total = float(value.mean() + penalty / 2 * (weights @ weights))
            return total, np.append(gradient, wrong.mean() / sd)

        first = np.append(upper @ start[:-1], start[-1] * sd)
        found = minimize(
            loss,
            first,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": MOST_STEPS, "gtol": TOLERANCE / 10, "ftol": 0},
        )
        weights = solve_triangular(upper, found.x[:-1])
        return (
            np.append(weights, found.x[-1] / sd),
            bool(np.abs(found.jac).max() <= TOLERANCE),
            int(found.nit),
        )
