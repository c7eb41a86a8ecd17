"""The regression of positions: the optimum of scikit-learn's, also where features are alike."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pathencoder.errors import ConfigError
from training.evaluation import pixel_regression

pytestmark = pytest.mark.full
CS = (1e-4, 1e-2, 1.0)


def correlated(n=1500, wide=40):
    """Forty features of six causes, in different units, one of them constant; and their classes."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(n, 6))
    x = causes @ rng.normal(size=(6, wide)) + 0.02 * rng.normal(size=(n, wide))
    x = (x * np.logspace(-2, 2, wide) + 5).astype(np.float32)
    x[:, 3] = 7
    return x, causes[:, 0] + causes[:, 1] + rng.normal(size=n) > 0.5


def test_it_is_the_optimum_of_the_same_objective():
    x, y = correlated()
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    for fitted, c in zip(pixel_regression.fit(x.copy(), y, CS), CS, strict=True):
        exact = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-9).fit(scaled, y)
        logits = x @ fitted.weights + fitted.bias
        assert fitted.converged
        assert fitted.steps < 40  # plain L-BFGS takes hundreds
        assert logits == pytest.approx(exact.decision_function(scaled), abs=0.02)


def test_a_fit_that_runs_out_of_steps_says_so(monkeypatch):
    monkeypatch.setattr(pixel_regression, "MOST_STEPS", 1)
    (fitted,) = pixel_regression.fit(*correlated(), (1.0,))
    assert not fitted.converged


def test_what_cannot_be_fitted_is_explained():
    x, y = correlated()
    with pytest.raises(ConfigError, match="no labelled objects"):
        pixel_regression.fit(x.copy(), np.zeros_like(y), CS)
    x[5, 5] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        pixel_regression.fit(x, y, CS)
