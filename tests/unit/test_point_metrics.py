"""Scores of cells with classes: counts pooled, cells of no known class left out."""

import numpy as np
import pytest

from pathencoder.errors import ConfigError
from pathencoder.point_metrics import Cells, class_scores, class_share, given_point_scores

pytestmark = pytest.mark.full
NOTHING = Cells(np.zeros((0, 2)), [])


def cells(*points):
    return Cells(np.array([p[:2] for p in points], float).reshape(-1, 2), [p[2] for p in points])


def test_a_cell_of_another_class_is_no_hit():
    true = cells((10, 10, "a"), (50, 50, "b"), (90, 90, "b"))
    found = cells((12, 10, "a"), (50, 52, "a"), (91, 90, "b"))
    scores = class_scores([true], [found], ["a", "b"], 6)
    a, b = scores.by_class["a"], scores.by_class["b"]
    assert (a.matched, a.predicted, a.true) == (1, 2, 1)
    assert (b.matched, b.predicted, b.true) == (1, 1, 2)
    assert scores.mean_f1 == pytest.approx(2 / 3)
    assert scores.weighted_f1 == pytest.approx(2 / 3)


def test_counts_are_pooled_over_images():
    one = cells((10, 10, "a"))
    many = cells(*((20 * i, 10, "a") for i in range(9)))
    scores = class_scores([one, many], [NOTHING, many], ["a"], 6)
    assert scores.by_class["a"].f1 == pytest.approx(18 / 19)


def test_found_cells_at_cells_of_no_known_class_do_not_count():
    true = cells((10, 10, "a"), (50, 50, ""))
    scores = class_scores([true], [cells((10, 10, "a"), (51, 50, "a"))], ["a", "b"], 6)
    assert scores.by_class["a"].f1 == 1
    assert scores.mean_f1 == 1  # no cell is of class b, and none was found
    far = class_scores([true], [cells((10, 10, "a"), (70, 50, "a"))], ["a", "b"], 6)
    assert far.by_class["a"].precision == 0.5


def test_weights_are_those_of_the_true_cells():
    true = cells(*((20 * i, 0, "a") for i in range(3)), (0, 50, "b"))
    found = cells(*((20 * i, 0, "a") for i in range(3)))
    scores = class_scores([true], [found], ["a", "b"], 6)
    assert scores.weighted_f1 == pytest.approx(0.75)
    assert scores.mean_f1 == pytest.approx(0.5)


def test_given_points():
    scores = given_point_scores(["a", "a", "b", ""], ["a", "b", "b", "a"], ["a", "b"])
    assert scores.by_class["a"].f1 == pytest.approx(2 / 3)
    assert scores.by_class["b"].f1 == pytest.approx(2 / 3)


def test_the_share_of_a_class():
    assert class_share(["p", "n", "n", "x"], "p", ["p", "n"]) == pytest.approx(1 / 3)
    assert np.isnan(class_share(["x"], "p", ["p", "n"]))


def test_no_cells_at_all():
    scores = class_scores([NOTHING], [NOTHING], ["a"], 6)
    assert np.isnan(scores.weighted_f1)
    assert np.isnan(scores.mean_f1)


def test_labels_of_another_number_are_refused():
    with pytest.raises(ConfigError, match="2 points and 1 labels"):
        Cells(np.zeros((2, 2)), ["a"])
