"""The networks of slide heads: numpy gives what PyTorch trains, and attention is the definition."""

import itertools

import numpy as np
import pytest
import torch

from pathencoder.errors import ConfigError
from pathencoder.heads.slide import model, training
from pathencoder.heads.slide.bags import Bags, as_objects
from pathencoder.heads.slide.options import AbmilOptions

pytestmark = pytest.mark.full

MODELS = [model.Abmil, model.SlideMean, model.SlideMax]
SETTINGS = {**AbmilOptions(hidden=8, attention=4, tiles=6, seeds=2).settings(), "epochs": 2}


def bags(count=12, tiles=(3, 9), dim=5, seed=0):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(rng.integers(*tiles), dim)).astype(np.float32) for _ in range(count)]
    y = np.arange(count) % 2
    for tiles_of, label in zip(x, y, strict=True):
        tiles_of[0, 0] += 6 * label
    return Bags(as_objects(x), y, np.arange(count), 2, None, 0, device="cpu")


@pytest.mark.parametrize("kind", MODELS)
def test_numpy_gives_what_the_network_gives(kind):
    made = bags()
    trained = training._Training(kind, made, SETTINGS, 0)
    trained.epoch()
    trained._net.eval()
    trained._most = 99
    tiles, there = trained._batch(np.arange(len(made.x)))
    with torch.no_grad():
        expected = trained._net(tiles, there).numpy()
    found = kind((trained.arrays(),)).logits(made.x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attention_is_that_of_the_paper():
    """Ilse et al. 2018, equations 8 and 9, written out tile by tile."""
    made = bags()
    fitted = model.Abmil.fit(made, SETTINGS)
    tiles = made.x[1]
    for member, weights in zip(fitted.members, fitted.weights(tiles), strict=True):
        scaled = (tiles - member["mean"]) / member["scale"]
        hidden = [np.maximum(t @ member["embed"] + member["embed_bias"], 0) for t in scaled]
        scores = []
        for h in hidden:
            value = np.tanh(h @ member["value"] + member["value_bias"])
            gate = 1 / (1 + np.exp(-(h @ member["gate"] + member["gate_bias"])))
            scores.append(member["score"] @ (value * gate))
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
        pooled = sum(a * h for a, h in zip(expected, hidden, strict=True))
        np.testing.assert_allclose(fitted.pooled(member, tiles), pooled, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [model.Abmil, model.SlideMax])
def test_weights_sum_to_one_and_do_not_depend_on_order(kind):
    made = bags()
    fitted = kind.fit(made, SETTINGS)
    weights = fitted.weights(made.x[1])
    assert weights.shape == (2, len(made.x[1]))
    np.testing.assert_allclose(weights.sum(1), 1)
    turned = made.x[1][::-1]
    np.testing.assert_allclose(fitted.weights(turned)[:, ::-1], weights, atol=1e-6)
    np.testing.assert_allclose(fitted.logits([turned]), fitted.logits([made.x[1]]), atol=1e-5)


def test_the_weights_of_the_maximum_are_shares_of_hidden_units():
    made = bags()
    fitted = model.SlideMax.fit(made, SETTINGS)
    member, tiles = fitted.members[0], made.x[1]
    scaled = (tiles - member["mean"]) / member["scale"]
    hidden = np.maximum(scaled @ member["embed"] + member["embed_bias"], 0)
    active = [unit for unit in hidden.T if unit.max() > 0]
    expected = [sum(unit.argmax() == n for unit in active) / len(active) for n in range(len(tiles))]
    np.testing.assert_allclose(fitted.weights(tiles)[0], expected)


def test_the_mean_has_no_attention():
    fitted = model.SlideMean.fit(bags(), SETTINGS)
    with pytest.raises(ConfigError, match="weighs every tile the same"):
        fitted.weights(bags().x[0])


@pytest.mark.parametrize("kind", MODELS)
def test_blocks_do_not_change_the_scores(kind, monkeypatch):
    made = bags()
    fitted = kind.fit(made, SETTINGS)
    whole = fitted.logits(made.x), fitted.tile_logits(made.x[1])
    monkeypatch.setattr(model, "_BLOCK", 2)
    for a, b in zip(whole, (fitted.logits(made.x), fitted.tile_logits(made.x[1])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_score_of_a_tile_is_that_of_a_slide_of_one_tile():
    made = bags()
    for kind in MODELS:
        fitted = kind.fit(made, SETTINGS)
        each = fitted.logits([tile[None] for tile in made.x[1]])
        np.testing.assert_allclose(fitted.tile_logits(made.x[1]), each, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_arrays_give_the_model_back(kind):
    made = bags()
    fitted = kind.fit(made, SETTINGS)
    again = kind.from_arrays(fitted.arrays(), SETTINGS)
    np.testing.assert_array_equal(again.logits(made.x), fitted.logits(made.x))
    assert len(again.members) == 2
    assert not np.allclose(again.members[0]["embed"], again.members[1]["embed"])


@pytest.mark.parametrize("kind", MODELS)
def test_a_fit_is_repeatable_and_leaves_random_numbers_alone(kind):
    made, before = bags(), torch.get_rng_state()
    first, second = (kind.fit(made, SETTINGS).logits(made.x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_steps_take_random_tiles_of_large_bags():
    made = bags(tiles=(20, 30))
    trained = training._Training(model.Abmil, made, SETTINGS, 0)
    batches = [trained._batch(np.arange(3)) for _ in range(2)]
    assert {b[0].shape for b in batches} == {(3, 6, 5)}
    assert not torch.equal(batches[0][0], batches[1][0])
    assert all(b[1].all() for b in batches)


def test_training_stops_early_and_counts_its_networks():
    counted = itertools.count()
    noise = bags(count=40)
    for x in noise.x:
        x[0, 0] = 0  # nothing to learn
    noise = training.dataclasses.replace(noise, trained=lambda: next(counted))
    settings = model.Abmil.choose(noise, AbmilOptions(hidden=8, attention=4, learning_rate=0.01))
    assert settings["epochs"] < 100
    model.Abmil.fit(noise, {**settings, "seeds": 3, "epochs": 1})
    assert next(counted) == 4
    assert model.Abmil.choose(noise, AbmilOptions(epochs=7))["epochs"] == 7


def test_a_loss_that_is_no_number_is_refused():
    broken = bags()
    trained = training._Training(model.Abmil, broken, SETTINGS, 0)
    with torch.no_grad():
        trained._net.out.bias.fill_(torch.nan)
    with pytest.raises(ConfigError, match="smaller learning_rate"):
        trained.epoch()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bag": "tile"}, "bag='tile'"),
        ({"seeds": 0}, "seeds=0"),
        ({"tiles": 1.5}, r"tiles=1\.5"),
        ({"epochs": 0}, "epochs=0"),
        ({"dropout": 1}, "dropout=1"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"features": 3}, "features=3"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(ConfigError, match=words):
        AbmilOptions(**options)
