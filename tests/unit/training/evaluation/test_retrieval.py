"""Retrieval on points whose neighbours are known."""

import numpy as np
import pytest

from training.evaluation import retrieval

pytestmark = pytest.mark.full

# angles in degrees: the neighbours of the first are the second, third, fourth and fifth
X = np.array([(np.cos(a), np.sin(a)) for a in np.deg2rad([0, 1, 3, 7, 15])], np.float32)
Y = np.array([0, 0, 1, 0, 1])
ALONE = np.array(list("abcde"))


def test_average_precision_by_hand():
    found = retrieval.average_precisions(X, Y, ALONE)
    assert found[0] == pytest.approx((1 + 2 / 3) / 2)  # right at ranks 1 and 3
    assert found[4] == pytest.approx(1 / 2)


def test_tiles_of_the_own_group_are_not_searched():
    found = retrieval.average_precisions(X, Y, np.array(list("aabcd")))
    assert found[0] == pytest.approx(1 / 2)
    same = np.array(["a", "b", "c", "d", "c"])
    assert np.isnan(retrieval.average_precisions(X, Y, same)[4])


def test_the_most_frequent_of_the_first_counts():
    found = retrieval.right_at_first(X, Y, ALONE)
    assert found.tolist() == [1, 1, 0, 0, 0]  # of equals the class of the nearest


def test_classes_count_alike():
    assert retrieval.mean_over_classes(np.array([1.0, 1, 0, 1, np.nan]), Y) == pytest.approx(0.5)
