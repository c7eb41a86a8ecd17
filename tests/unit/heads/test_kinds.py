"""The kinds of head on made-up embeddings, against their definitions."""

import dataclasses

import numpy as np
import pytest
import torch

from pathencoder import metrics
from pathencoder.errors import ConfigError
from pathencoder.heads import folds, kinds
from pathencoder.heads.rows import Rows, softmax
from training.evaluation.probe import Labels, probe

pytestmark = pytest.mark.full


def rows(classes=2, each=40, groups=8, apart=2.0, class_weights=None, seed=0):
    """Gaussian classes in 16 dimensions; groups hold all classes."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), each)
    x = rng.normal(size=(len(y), 16))
    x[np.arange(len(y)), y] += apart
    group = np.tile(np.arange(groups), len(y) // groups + 1)[: len(y)]
    return Rows(x, y, group, classes, class_weights, 0)


def made(name, data, **options):
    model = kinds.kind(name)
    return model.fit(data, model.choose(data, kinds.options_of(name, options)))


@pytest.mark.parametrize("name", kinds.names("classifier"))
@pytest.mark.parametrize("classes", [2, 3])
def test_each_kind_learns(name, classes):
    model = made(name, rows(classes, apart=3.0))
    new = rows(classes, apart=3.0, seed=1)
    found = softmax(model.logits(new.x))
    assert metrics.balanced_accuracy(new.y, found.argmax(1)) > 0.8
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize("name", ["linear", "mlp", "knn"])
def test_class_weights_move_the_border(name):
    def second(weights):
        data = rows(apart=1.0, class_weights=np.array(weights))
        return (made(name, data).logits(rows(seed=1).x).argmax(1) == 1).mean()

    assert second([1.0, 8.0]) > second([1.0, 1.0]) > second([8.0, 1.0])


def test_balanced_weights_give_classes_the_same_sum():
    data = rows().take(np.arange(30, 80))  # 10 and 40
    assert data.weights[data.y == 0].sum() == pytest.approx(data.weights[data.y == 1].sum())
    assert data.weights.mean() == pytest.approx(1)


def test_neighbours_vote_as_metrics_says():
    data, new = rows(), rows(seed=1)
    model = made("knn", data, k=7)
    expected = metrics.knn_predict(new.x, data.x.astype(np.float32), data.y, k=7)
    np.testing.assert_array_equal(model.logits(new.x).argmax(1), expected)


def test_shots_are_drawn_from_many_groups():
    data = rows(each=40, groups=8)
    model, all_of_them = made("prototypes", data, shots=5), made("prototypes", data)
    assert model.means.shape == (2, 16)
    assert not np.allclose(model.means, all_of_them.means)
    one = made("prototypes", data, shots=1)
    np.testing.assert_allclose(np.linalg.norm(one.means, axis=1), 1)
    from pathencoder.heads.prototypes import _draw

    drawn = _draw(np.arange(40), data.groups, 8, np.random.default_rng(0))
    assert len(set(data.groups[drawn])) == 8


def test_the_network_stops_early_and_leaves_random_numbers_alone():
    data = rows(apart=0.3)  # hardly learnable: longer training only fits the noise
    before = torch.get_rng_state()
    model = kinds.kind("mlp")
    settings = model.choose(data, kinds.options_of("mlp", {}))
    assert settings["epochs"] < 50
    a, b = (model.fit(data, settings) for _ in range(2))
    np.testing.assert_array_equal(a.logits(data.x), b.logits(data.x))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("linear", {"c": 0}, "c=0"),
        ("linear", {"C": 1}, r"C: the head 'linear' has c\. Did you mean 'c'"),
        ("knn", {"k": 0}, "k=0"),
        ("knn", {"k": 2.5}, r"k=2\.5"),
        ("prototypes", {"shots": 0}, "shots=0"),
        ("mlp", {"dropout": 1}, "dropout=1"),
        ("mlp", {"hidden": "x"}, "hidden='x'"),
        ("mlp", {"epochs": 0}, "epochs=0"),
    ],
)
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(ConfigError, match=words):
        kinds.options_of(name, options)


def test_folds_keep_groups_together_and_classes_everywhere():
    data = rows(3, each=12, groups=4)
    found = folds.grouped_folds(data.y, data.groups)
    assert len(found) == 4
    for fitted, held_out in found:
        assert not set(data.groups[fitted]) & set(data.groups[held_out])
        assert set(data.y[fitted]) == {0, 1, 2}
    assert sorted(np.concatenate([b for _, b in found])) == list(range(36))
    with pytest.raises(folds.NoFolds):
        folds.grouped_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))


def test_the_linear_head_is_the_probe_of_the_cards():
    """Folds, choice of C and fit are those of `training.evaluation.probe`."""
    data = rows(apart=1.0)
    names = [f"{n}.png" for n in range(len(data.y))]
    groups = np.array([f"g{g}" for g in data.groups])
    labels = Labels(names, data.y, groups, np.full(len(data.y), "folds"), ["a", "b"])
    (outcome,) = probe(data.x.astype(np.float32), labels, test=None, seeds=1)
    same = dataclasses.replace(data, x=data.x.astype(np.float32).astype(np.float64))
    found = np.zeros((len(data.y), 2))
    for fitted, held_out in folds.grouped_folds(data.y, data.groups):
        found[held_out] = softmax(made("linear", same.take(fitted)).logits(same.x[held_out]))
    np.testing.assert_allclose(found, outcome.probability, atol=1e-6)
