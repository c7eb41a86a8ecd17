"""Draws from a window of shards: shares of slides and stains, resuming, few shards at a time."""

import logging
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from training.data import window as windows
from training.data.sampler import Sampler
from training.data.tiles import Parts
from training.data.window import in_window

pytestmark = pytest.mark.full

SHARDS = 60


def corpus(seed=5):
    """Slides of uneven size of three kinds over 60 shards; some slides lie in two shards."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 300, 150)
    slide_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    starts = np.unique(np.concatenate([slide_starts, rng.integers(1, sizes.sum(), 40)]))
    shard = np.minimum(starts[:-1] * SHARDS // sizes.sum(), SHARDS - 1)
    parts = Parts(starts, rng.permutation(SHARDS)[shard])
    stains = rng.integers(0, 3, 150).astype(np.int8)
    return SimpleNamespace(
        tiles=SimpleNamespace(parts=lambda: parts),
        slide_starts=slide_starts,
        slide_stains=stains,
        slide_organs=np.zeros(150, np.int32),
        organs=("unknown",),
    )


def samplers(batch, window=12, seed=0, run=1):
    made = corpus()
    weights = np.diff(made.slide_starts) ** 0.5 * np.where(made.slide_stains == 1, 3, 1)
    whole = Sampler(made.slide_starts, weights / weights.sum(), batch, seed, run=run)
    return made, whole, in_window(whole, made, window)


def shards_of(made, tiles):
    parts = made.tiles.parts()
    return parts.shard[np.searchsorted(parts.starts, tiles, "right") - 1]


def test_a_step_draws_from_the_shards_of_its_window_only():
    made, _, tested = samplers(32)
    for step in (0, 1, 7, 500, 12345):
        inside = set(tested.shards_at(step).tolist())
        assert len(inside) <= 12
        assert set(shards_of(made, tested.draw(step)).tolist()) <= inside
        assert set(shards_of(made, tested.spares(step)).tolist()) <= inside


def test_the_window_changes_by_a_part_at_a_time():
    _, _, tested = samplers(32, window=16)
    now = [tested.shards_at(step) for step in range(3 * tested.period)]
    changed = [np.count_nonzero(a != b) for a, b in pairwise(now)]
    assert max(changed) <= 2
    assert 40 <= sum(changed) <= 48  # each of 16 places three times at most


def test_shards_are_opened_far_more_rarely_than_tiles_are_drawn():
    made, _, tested = samplers(8)
    seen = [set(shards_of(made, tested.draw(step)).tolist()) for step in range(500)]
    new = sum(len(b - a) for a, b in pairwise(seen))
    inside = [set(tested.shards_at(step).tolist()) for step in range(500)]
    opened = sum(len(b - a) for a, b in pairwise(inside))
    assert opened < 0.02 * 8 * 500 < new


def slide_weights(made, tested, step):
    """The probability of each slide in the window of a step."""
    view = tested._view(step)
    first = view.in_corpus(view.sampler.slide_starts[:-1])
    slide = np.searchsorted(made.slide_starts, first, "right") - 1
    return np.bincount(slide, view.sampler.weights, 150)


def test_slides_and_stains_are_drawn_as_often_as_without_a_window():
    made, whole, tested = samplers(1)
    rounds = 600
    steps = (r * tested.period * 3 for r in range(rounds))  # of independent windows
    slides = sum(slide_weights(made, tested, step) for step in steps) / rounds
    assert np.abs(slides - whole.weights).sum() < 0.1
    expected = np.bincount(made.slide_stains, whole.weights)
    assert np.bincount(made.slide_stains, slides) == pytest.approx(expected, abs=0.01)
    assert tested.tiles == whole.tiles


def test_every_window_has_nearly_the_shares_of_the_stains():
    made, whole, tested = samplers(1, window=30)
    expected = np.bincount(made.slide_stains, whole.weights)
    for r in range(50):
        slides = slide_weights(made, tested, r * 3 * tested.period)
        assert np.bincount(made.slide_stains, slides) == pytest.approx(expected, abs=0.12)


def test_a_draw_depends_on_the_step_alone():
    one, other = samplers(16)[2], samplers(16)[2]
    drawn = [one.draw(step) for step in range(400)]
    assert all(np.array_equal(other.draw(step), drawn[step]) for step in (399, 3, 200, 0))


def test_runs_are_drawn_from_the_window_of_their_first_step():
    made, _, tested = samplers(16, run=8)
    again = samplers(16, run=8)[2]
    steps = range(0, 50 * tested.period, tested.period - 1)
    for step in steps:
        first = step - step % 8
        drawn = tested.draw(step)
        assert set(shards_of(made, drawn)) <= set(tested.shards_at(first).tolist())
        assert set(shards_of(made, tested.spares(step))) <= set(tested.shards_at(first).tolist())
        assert len(np.unique(drawn)) == 16
        slides = np.searchsorted(made.slide_starts, drawn, "right")
        before = np.searchsorted(made.slide_starts, tested.draw(first), "right")
        assert np.array_equal(slides, before)
    assert np.array_equal(again.draw(steps[-1]), tested.draw(steps[-1]))


def test_no_slide_and_no_tile_twice_in_a_batch_while_there_are_others():
    made, _, tested = samplers(10)
    assert len({*(np.searchsorted(made.slide_starts, tested.draw(5), "right")).tolist()}) == 10
    assert len(np.unique(samplers(400)[2].draw(3))) == 400


def test_a_slide_of_weight_zero_is_never_drawn():
    made = corpus()
    weights = (made.slide_stains == 0).astype(float)
    whole = Sampler(made.slide_starts, weights / weights.sum(), 16, 0)
    tested = in_window(whole, made, 8)
    for step in range(0, 5000, 50):
        slides = np.searchsorted(made.slide_starts, tested.draw(step), "right") - 1
        assert (made.slide_stains[slides] == 0).all()


@pytest.mark.parametrize(
    ("window", "windowed"), [(None, False), (0, False), (60, False), (59, True)]
)
def test_small_corpora_are_drawn_whole(window, windowed):
    _, whole, tested = samplers(4, window=window)
    assert (tested is not whole) == windowed


def test_a_corpus_of_more_shards_than_can_stay_open_has_a_window_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(windows.open_files, "MOST_FILES", 50)
    monkeypatch.setattr(windows, "AUTOMATIC", 20)
    with caplog.at_level(logging.INFO):
        _, whole, tested = samplers(4, window=None)
    assert tested is not whole
    assert "tiles are drawn from a window of 20 of 60 shards (data.window, automatic" in caplog.text


def test_a_window_of_few_tiles_is_reported(caplog):
    samplers(3000, window=3)
    assert "data.window=3 holds about" in caplog.text
