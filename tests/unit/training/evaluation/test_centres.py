"""The robustness index by hand, and how well centres are predicted."""

import numpy as np
import pytest

from training.evaluation import centres

pytestmark = pytest.mark.full


def cells(biology, centre, n=40, seed=0):
    """Tiles of two classes in two centres, whose embedding shows each to a degree."""
    rng = np.random.default_rng(seed)
    y, c = np.arange(n) % 2, np.arange(n) // 2 % 2
    x = rng.normal(size=(n, 8)) * 0.1
    x[:, 0] += biology * (2 * y - 1)
    x[:, 1] += centre * (2 * c - 1)
    return x.astype(np.float32), y, np.array(["A", "B"])[c], np.array([f"s{i}" for i in range(n)])


def test_the_index_by_hand():
    x = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    y, c = np.array([0, 0, 1, 1]), np.array(list("ABAB"))
    found = centres.neighbour_counts(x, y, c, np.array(list("wxyz")), k=1)
    # the nearest of the second is the third, of another class and another centre
    assert found.same_other.tolist() == [1, 0, 1, 1]
    assert found.index() == 1.0
    two = centres.neighbour_counts(x, y, c, np.array(list("wxyz")), k=2)
    assert (two.same_other.sum(), two.other_same.sum()) == (4, 2)
    assert two.index() == pytest.approx(4 / 6)
    assert two.index(np.array([0])) == pytest.approx(1 / 2)


def test_the_own_slide_is_left_out():
    x = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    y, c = np.array([0, 0, 1, 1]), np.array(list("ABAB"))
    found = centres.neighbour_counts(x, y, c, np.array(list("wwyz")), k=1)
    assert found.same_other.tolist()[:2] == [0, 0]


@pytest.mark.parametrize(("biology", "centre", "index"), [(1, 0, 1.0), (0, 1, 0.0), (0, 0, 0.5)])
def test_the_index_follows_what_the_embedding_shows(biology, centre, index):
    x, y, c, slides = cells(biology, centre)
    found = centres.neighbour_counts(x, y, c, slides, k=5)
    assert found.index() == pytest.approx(index, abs=0.2)
    assert found.chance == pytest.approx(0.5, abs=0.03)


def test_it_needs_two_classes_in_two_centres():
    y, c = np.array([0, 0, 1, 1]), np.array(list("ABAB"))
    assert centres.allows_index(y, c)
    assert not centres.allows_index(y, np.array(list("ABAA")))


@pytest.mark.parametrize(("centre", "auroc"), [(1, 1.0), (0, 0.5)])
def test_centres_are_told_where_the_embedding_shows_them(centre, auroc):
    x, _, c, slides = cells(0, centre, n=120)
    probability = centres.centre_probabilities(x, c, slides)
    assert centres.centre_auroc(c, probability) == pytest.approx(auroc, abs=0.15)


def test_centres_that_are_in_one_group_cannot_be_told():
    x, _, c, _ = cells(0, 1)
    assert centres.centre_probabilities(x, c, c) is None
