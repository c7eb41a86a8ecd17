"""Principal components, similarity and clusters against plain numpy."""

import numpy as np
import pytest

from pathencoder.pictures import components


def some_rows(count=300, dim=40, seed=0):
    random = np.random.default_rng(seed)
    return (5 + random.normal(size=(count, dim)) * np.linspace(3, 0.1, dim)).astype(np.float32)


def centred(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit - unit.mean(axis=0)


def test_components_are_those_of_all_rows_together():
    rows = some_rows()
    found = components.find_components([rows[:100], rows[100:]], 5)
    _, values, axes = np.linalg.svd(centred(rows).astype(np.float64), full_matrices=False)
    assert found.shares == pytest.approx(values[:5] ** 2 / (values**2).sum(), rel=1e-4)
    assert np.abs(np.abs(found.axes.T @ axes[:5].T) - np.eye(5)).max() < 1e-2
    assert np.allclose(found.scores(rows), centred(rows) @ found.axes, atol=1e-5)
    again = components.find_components([rows], 5)
    assert np.allclose(found.axes, again.axes, atol=1e-4)


def test_similarity_is_the_cosine_about_the_mean():
    rows = some_rows()
    found = components.similarity(components.find_components([rows], 1).centred(rows), 7)
    plain = centred(rows)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.allclose(found, plain @ plain[7], atol=1e-5)
    assert found.argmax() == 7


@pytest.mark.parametrize("rows", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((6, 4))])
def test_few_or_equal_rows_have_components_and_one_cluster(rows):
    rows = rows.astype(np.float32)
    found = components.find_components([rows], 64)
    scores = found.scores(rows)
    assert np.isfinite(scores).all()
    assert np.isfinite(found.shares).all()
    assert components.clusters(scores, 5).tolist() == [0] * len(rows)


def test_clusters_are_the_groups_that_are_there_the_largest_first():
    random = np.random.default_rng(1)
    kinds = random.permutation(np.repeat([0, 1, 2], [100, 60, 30]))
    centres = 4 * np.eye(3, 10)
    scores = (centres[kinds] + 0.3 * random.normal(size=(190, 10))).astype(np.float32)
    assert components.clusters(scores, 3).tolist() == kinds.tolist()
    assert len(set(components.clusters(scores, 7).tolist())) == 7
