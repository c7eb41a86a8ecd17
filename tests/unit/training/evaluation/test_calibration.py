"""Calibration errors by hand, and the temperature that the probe's logits are divided by."""

import numpy as np
import pytest

from training.evaluation import calibration, probe
from training.evaluation.probe import Labels

pytestmark = pytest.mark.full


def test_errors_by_hand():
    y = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    bins = calibration.reliability(y, p)
    assert [(b.rows, round(b.accuracy, 3)) for b in bins] == [(1, 1.0), (3, 0.667)]
    assert calibration.expected_error(y, p) == pytest.approx(0.25 * 0.4 + 0.75 * (0.9 - 2 / 3))
    assert calibration.brier(y, p) == pytest.approx((0.02 + 0.02 + 1.62 + 0.32) / 4)
    expected = -np.log([0.9, 0.9, 0.1, 0.6]).mean()
    assert calibration.log_loss(y, p) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_divides_the_logits_of_the_probe(classes):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 240)
    x = (rng.normal(size=(240, 20)) + np.eye(20)[y]).astype(np.float32)
    groups = np.array([f"g{i % 24}" for i in range(240)])
    split = np.where(np.arange(240) % 24 < 16, "train", "test")
    labels = Labels([""] * 240, y, groups, split, [f"c{i}" for i in range(classes)])
    (outcome,) = probe.probe(x, labels, test="test", seeds=1)
    scaled = calibration.temperature_scaled(x, labels, outcome, test="test")
    (temperature,) = scaled.temperatures
    before, after = (np.log(p[:, 1:] / p[:, :1]) for p in (outcome.probability, scaled.probability))
    assert after * temperature == pytest.approx(before, rel=2e-2, abs=2e-2)
    assert abs(temperature - 1) > 0.02
