"""Metrics agree with cases by hand, a slow implementation, scikit-learn and other packages."""

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED

from pathencoder import compat, matching, metrics
from pathencoder.errors import ConfigError

REFEREE = SHARED / "tools/nuclei_score.py"


def random_map(rng, size=24, objects=6):
    labels = np.zeros((size, size), int)
    for label in range(1, objects + 1):
        y, x = rng.integers(0, size - 4, 2)
        labels[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = label * 3
    return labels


def slow_scores(truth, predicted):
    """AJI, PQ and F1 by loops over objects, as the papers define them."""
    ts = [truth == v for v in np.unique(truth) if v]
    ps = [predicted == v for v in np.unique(predicted) if v]
    inter = union = 0
    used = set()
    for t in ts:
        ious = [(t & p).sum() / (t | p).sum() for p in ps]
        best = int(np.argmax(ious))
        if ious[best] == 0:
            union += t.sum()
            continue
        used.add(best)
        inter += (t & ps[best]).sum()
        union += (t | ps[best]).sum()
    union += sum(p.sum() for i, p in enumerate(ps) if i not in used)
    matched = [
        (t & p).sum() / (t | p).sum() for t in ts for p in ps if (t & p).sum() / (t | p).sum() > 0.5
    ]
    denominator = len(matched) + (len(ts) - len(matched)) / 2 + (len(ps) - len(matched)) / 2
    return inter / union, sum(matched) / denominator, len(matched) / denominator


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_instance_scores_agree_with_a_slow_implementation(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = random_map(rng), random_map(rng)
    found = metrics.instance_scores(truth, predicted)
    np.testing.assert_allclose((found.aji, found.pq, found.f1), slow_scores(truth, predicted))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_scores_do_not_depend_on_labels_or_on_rotation(seed, factor):
    rng = np.random.default_rng(seed)
    truth, predicted = random_map(rng), random_map(rng)
    assert metrics.instance_scores(truth, predicted) == metrics.instance_scores(
        truth * factor, predicted * 2
    )
    turned = metrics.instance_scores(np.rot90(truth), np.rot90(predicted))
    np.testing.assert_allclose(turned.aji, metrics.instance_scores(truth, predicted).aji)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_map_against_itself_is_perfect(seed):
    labels = random_map(np.random.default_rng(seed))
    assert metrics.instance_scores(labels, labels) == metrics.InstanceScores(1.0, 1.0, 1.0, 1.0)


@pytest.mark.full
@pytest.mark.skipif(not REFEREE.exists(), reason="the referee is not here")
def test_instance_scores_agree_with_the_referee():
    spec = importlib.util.spec_from_file_location("nuclei_score", REFEREE)
    referee = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(referee)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, predicted = random_map(rng, objects=seed % 7), random_map(rng, objects=seed % 5)
        found = metrics.instance_scores(truth, predicted)
        if truth.any() or predicted.any():  # two empty maps: 1 here, 0 of Dice there
            np.testing.assert_allclose(
                (found.dice, found.aji, found.pq, found.f1), referee.scores(truth, predicted)
            )
        a, b = rng.uniform(0, 50, (9, 2)), rng.uniform(0, 50, (7, 2))
        assert len(matching.match_points(a, b, 8)) == referee.matched(a, b, 8)


@pytest.mark.full
@pytest.mark.parametrize("radius", [0.0, 2.0, 9.0, 300.0])
def test_points_are_matched_as_all_of_them_at_once_would_be(radius):
    """Parts that no near pair connects are matched apart, which changes nothing."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(0)
    for n, m in ((40, 55), (55, 40), (1, 30), (0, 3)):
        truth, found = rng.uniform(0, 90, (n, 2)), rng.uniform(0, 90, (m, 2))
        distance = np.linalg.norm(truth[:, None] - found[None], axis=2)
        i, j = linear_sum_assignment(np.where(distance <= radius, distance, 1e6))
        near = distance[i, j] <= radius
        expected = np.stack([i[near], j[near]], 1)
        np.testing.assert_array_equal(matching.match_points(truth, found, radius), expected)


@pytest.mark.full
def test_matches_of_parts_are_counted_as_points_are_matched():
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0, 40, (60, 2)), rng.uniform(0, 40, (70, 2))
    kept = rng.random((5, 70)) < [[0], [0.2], [0.5], [0.8], [1]]
    hits = matching.matches_of(truth, found, kept, 3.0)
    assert hits.tolist() == [len(matching.match_points(truth, found[some], 3.0)) for some in kept]
    assert hits[0] == 0 < hits[-1]
    assert matching.matches_of(truth[:0], found, kept, 3.0).tolist() == [0] * 5


def test_empty_maps():
    empty, full = np.zeros((4, 4), int), np.ones((4, 4), int)
    assert metrics.instance_scores(empty, empty) == metrics.InstanceScores(1.0, 1.0, 1.0, 1.0)
    assert metrics.instance_scores(full, empty) == metrics.InstanceScores(0.0, 0.0, 0.0, 0.0)
    assert metrics.instance_scores(empty, full).aji == 0


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"\(4, 4\) against \(5, 4\)"):
        metrics.instance_scores(np.zeros((4, 4), int), np.zeros((5, 4), int))


def test_dice_of_halves():
    truth, predicted = np.zeros((2, 4), int), np.zeros((2, 4), int)
    truth[0], predicted[:, :2] = 1, 1
    assert metrics.dice(truth, predicted) == 0.5


@pytest.mark.full
def test_detection_matches_as_many_as_possible():
    truth, predicted = [[0, 0], [10, 0]], [[4, 0], [-5, 0]]
    # the nearest pair (0,0)-(4,0) would leave (10,0) alone
    assert metrics.detection_scores(truth, predicted, 6).matched == 2
    assert metrics.detection_scores(truth, predicted, 3).matched == 0
    assert metrics.detection_scores([], [], 3).f1 == 1
    assert metrics.detection_scores(truth, [[0, 1]], 3).recall == 0.5


@pytest.mark.full
def test_classification_scores_agree_with_scikit_learn():
    from sklearn import metrics as sk

    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 200), rng.integers(0, 12, 200) / 12
    assert metrics.auroc(truth, scores) == pytest.approx(sk.roc_auc_score(truth, scores))
    several, probabilities = rng.integers(0, 3, 200), rng.dirichlet((1, 1, 1), 200)
    assert metrics.auroc(several, probabilities) == pytest.approx(
        sk.roc_auc_score(several, probabilities, multi_class="ovr")
    )
    predicted = probabilities.argmax(1)
    assert metrics.balanced_accuracy(several, predicted) == pytest.approx(
        sk.balanced_accuracy_score(several, predicted)
    )


def test_auroc_by_hand_and_refusals():
    assert metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    with pytest.raises(ConfigError, match="1 classes"):
        metrics.auroc([1, 1], [0.2, 0.3])
    with pytest.raises(ConfigError, match="one length"):
        metrics.balanced_accuracy([1, 0], [1])


def test_bootstrap_resamples_groups_not_members():
    values = np.array([0.0] * 50 + [1.0] * 50)
    rows = metrics.grouped_bootstrap(lambda r: values[r].mean(), range(100))
    groups = metrics.grouped_bootstrap(lambda r: values[r].mean(), ["a"] * 50 + ["b"] * 50)
    assert (groups.low, groups.value, groups.high) == (0, 0.5, 1)
    assert 0.35 < rows.low < rows.value < rows.high < 0.65


def test_bootstrap_leaves_out_draws_without_a_value():
    truth, scores = np.array([0, 1]), np.array([0.1, 0.9])
    found = metrics.grouped_bootstrap(
        lambda r: metrics.auroc(truth[r], scores[r]), ["a", "b"], draws=50
    )
    assert (found.low, found.high) == (1, 1)
    with pytest.raises(ConfigError, match="more groups"):
        metrics.grouped_bootstrap(lambda r: metrics.auroc([1], [1]), ["a"], draws=5)


def test_paired_difference():
    rng = np.random.default_rng(0)
    base = rng.normal(size=30)
    found = metrics.paired_difference(base + 0.1 + rng.normal(0, 0.01, 30), base)
    assert 0.09 < found.low < found.value < found.high < 0.11


def test_bootstrap_leaves_out_draws_without_a_class():
    y = np.array([0, 1, 1, 1])
    seen = []
    metrics.grouped_bootstrap(lambda r: float(seen.append(set(y[r])) or 0), y, labels=y, draws=50)
    assert seen
    assert all(classes == {0, 1} for classes in seen)


def test_neighbours_of_the_own_group_come_last_and_do_not_vote():
    rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 2.0], [-1.0, 0.0]])
    groups = np.array(["p", "p", "q", "r"])
    near, cosine = metrics.nearest_neighbours(rows[:1], rows, 4, groups=(groups[:1], groups))
    assert near[0, :2].tolist() == [2, 3]
    assert cosine[0].tolist() == [0, -1, -np.inf, -np.inf]
    labels = np.array(["a", "a", "b", "b"])
    assert metrics.knn_predict(rows[:1], rows, labels, k=2).tolist() == ["a"]
    apart = metrics.knn_predict(rows[:1], rows, labels, groups=(groups[:1], groups))
    assert apart.tolist() == ["b"]
    with pytest.raises(ConfigError, match="own group"):
        metrics.knn_predict(rows[:1], rows, labels, groups=(["p"], ["p"] * 4))


@pytest.mark.full
def test_knn_agrees_with_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    rows, queries, labels = (
        rng.normal(size=(90, 8)),
        rng.normal(size=(40, 8)),
        rng.integers(3, 6, 90),
    )
    theirs = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(rows, labels)
    assert np.array_equal(metrics.knn_predict(queries, rows, labels), theirs.predict(queries))


@pytest.mark.full
def test_instance_scores_agree_with_packages():
    """Panoptic quality by torchmetrics; foreground Dice by scikit-image's contingency table."""
    compat.import_timm()  # torchmetrics imports torchvision, which may need the workaround
    import torch
    from skimage import metrics as skimage
    from torchmetrics.functional import detection

    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth, predicted = random_map(rng, 40), random_map(rng, 40)
        if seed % 2:
            predicted = np.roll(truth, seed % 3, 1)  # so that objects match
        pair = [
            torch.from_numpy(np.stack([m > 0, m], -1).astype(np.int64))[None]
            for m in (predicted, truth)
        ]
        theirs = detection.panoptic_quality(*pair, things={1}, stuffs={0}, return_per_class=True)[
            0, 0
        ].item()
        found = metrics.instance_scores(truth, predicted)
        assert found.pq == pytest.approx(theirs, abs=1e-6)
        table = skimage.contingency_table(
            (truth > 0).astype(int), (predicted > 0).astype(int)
        ).toarray()
        assert found.dice == pytest.approx(
            2 * table[1, 1] / (2 * table[1, 1] + table[0, 1] + table[1, 0])
        )
