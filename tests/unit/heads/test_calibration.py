"""Temperature and abstention: against their definitions."""

import numpy as np
import pytest

from pathencoder.errors import ConfigError
from pathencoder.heads.calibration import (
    NEVER,
    abstention,
    check_max_error,
    log_loss,
    temperature,
)
from pathencoder.heads.rows import softmax

pytestmark = pytest.mark.full


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_has_the_least_loss(classes):
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (4000, classes))
    y = np.array([rng.choice(classes, p=np.exp(r) / np.exp(r).sum()) for r in true])
    weights = np.where(y == 0, 2.0, 1.0)
    found = temperature(true * 3, y, weights, smooth=False)
    losses = {t: log_loss(true * 3 / t, y, weights) for t in (found, found * 1.05, found / 1.05)}
    assert min(losses, key=losses.get) == found
    assert temperature(true * 3, y, np.ones(len(y))) == pytest.approx(3, rel=0.1)


def test_a_threshold_keeps_as_many_as_the_error_allows():
    sure = np.array([0.99, 0.9, 0.8, 0.8, 0.7, 0.6])
    right = np.array([1, 1, 1, 0, 1, 0])
    probabilities, y = np.stack([sure, 1 - sure], 1), 1 - right
    chosen = abstention(probabilities, y, 0.25)
    assert (chosen.threshold, chosen.error) == (0.7, 0.2)
    assert chosen.kept == pytest.approx(5 / 6)
    # of two images with one probability, both are kept or none
    assert abstention(probabilities, y, 0.1).threshold == 0.9
    none = abstention(probabilities, np.ones(6, int), 0.1)
    assert (none.threshold, none.kept) == (NEVER, 0)


@pytest.mark.parametrize("value", [0, 1, -0.1, True, "x", float("nan")])
def test_an_error_that_is_no_share(value):
    with pytest.raises(ConfigError, match="max_error="):
        check_max_error(value)


@pytest.mark.parametrize("classes", [2, 3])
def test_without_a_mistake_probabilities_stay_below_1(classes):
    y = np.arange(40) % classes
    logits = np.eye(classes)[y] * 3.0
    found = temperature(logits, y, np.ones(len(y)))
    assert 0.5 < found < 2
    expected = 1 - (classes - 1) / (len(y) + classes)  # what each row counts as of its own class
    np.testing.assert_allclose(softmax(logits / found).max(1), expected, rtol=1e-3)
