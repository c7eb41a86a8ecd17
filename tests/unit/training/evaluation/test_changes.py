"""Changes of tiles: what they are, and that they are the same every time."""

import numpy as np
import pytest
from skimage import data

from training.evaluation import changes

pytestmark = pytest.mark.full

TILE = np.ascontiguousarray(data.immunohistochemistry()[100:164, 100:164])


@pytest.mark.parametrize("change", changes.CHANGES, ids=lambda c: c.key)
def test_every_change_changes_a_little_and_repeats(change):
    (first,), (again,) = change.of([TILE]), change.of([TILE])
    assert first.shape == TILE.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    away = np.abs(first.astype(int) - TILE).mean()
    assert 0 < away < 40


def test_draws_differ():
    hues = [c.of([TILE])[0] for c in changes.CHANGES if c.condition == "hue"]
    assert len(hues) == changes.DRAWS
    assert not np.array_equal(hues[0], hues[1])


def test_turned_tiles_are_turned():
    rng = np.random.default_rng(0)
    assert np.array_equal(changes.turned(2)(TILE, rng), TILE[::-1, ::-1])


def test_magnified_tiles_show_the_middle():
    flat = np.zeros((64, 64, 3), np.uint8)
    flat[16:48, 16:48] = 200
    assert (changes.magnified(2)(flat, np.random.default_rng(0))[4:60, 4:60] > 190).all()


def test_keys_of_files_are_unique():
    keys = [c.key for c in changes.CHANGES]
    assert len(set(keys)) == len(keys)
    assert not any("/" in key or " " in key for key in keys)
