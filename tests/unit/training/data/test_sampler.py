"""Draws: no tile twice in a batch while there are others, and the same draws as ever."""

import hashlib
import logging

import numpy as np
import pytest
from PIL import Image
from small_runs import write_tiles

from pathencoder.errors import ConfigError
from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.sampler import Sampler, make_sampler
from training.data.tiles import STAIN_CLASSES

pytestmark = pytest.mark.full


def sampler(sizes, batch, seed=0, weights=None, run=1):
    sizes = np.asarray(sizes)
    weights = np.sqrt(sizes) if weights is None else np.asarray(weights, float)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Sampler(starts, weights / weights.sum(), batch, seed, run=run)


@pytest.mark.parametrize(
    ("sizes", "batch"),
    [([1000] * 10, 256), ([3, 500, 2, 1], 300), ([1, 1, 1], 3), ([100], 100), ([7, 7], 9)],
)
def test_no_tile_twice_in_a_batch_while_there_are_others(sizes, batch):
    for step in range(20):
        drawn = sampler(sizes, batch).draw(step)
        assert len(np.unique(drawn)) == batch
        assert drawn.min() >= 0
        assert drawn.max() < sum(sizes)


def test_slides_that_have_tiles_left_are_drawn_equally_often():
    tested = sampler([2, 1000, 1000, 1000], 302)
    counts = np.bincount(np.searchsorted(tested.slide_starts, tested.draw(0), "right") - 1)
    assert list(counts) == [2, 100, 100, 100]


def test_a_batch_larger_than_the_corpus_has_every_tile_equally_often_and_says_so(tmp_path, caplog):
    corpus = open_corpus(write_tiles(tmp_path, slides=2, each=3))
    counts = np.bincount(make_sampler(corpus, batch=15, seed=0).draw(4), minlength=6)
    assert sorted(counts) == [2, 2, 2, 3, 3, 3]
    assert "data.batch=15 is larger than the corpus, which has 6 tiles" in caplog.text
    caplog.clear()
    make_sampler(corpus, batch=6, seed=0)
    assert caplog.text == ""


def test_a_slide_of_weight_zero_is_never_drawn():
    for batch in (2, 30):
        assert sampler([40, 40, 40], batch, weights=[1, 0, 1]).tiles == 80
        drawn = sampler([40, 40, 40], batch, weights=[1, 0, 1]).draw(0)
        assert not ((drawn >= 40) & (drawn < 80)).any()


def test_stain_weights_that_leave_no_tile_are_refused(tmp_path):
    corpus = open_corpus(write_tiles(tmp_path, slides=2, each=3))
    weights = np.zeros(len(STAIN_CLASSES))
    with pytest.raises(ConfigError, match="leaves no tile to draw"):
        make_sampler(corpus, batch=2, seed=0, stain_weights=weights)


# sha256 of 20 draws of 64 tiles, as they were when slides were drawn only
BEFORE = {"equal": "dff65fc27a672121", "uneven": "01eb9051798f5112"}


@pytest.mark.parametrize("kind", BEFORE)
def test_draws_of_a_corpus_with_enough_slides_stay_as_they_were(kind):
    uneven = np.random.default_rng(7).integers(1, 400, 100)
    tested = sampler(np.full(100, 50) if kind == "equal" else uneven, 64, seed=3)
    drawn = np.concatenate([tested.draw(step) for step in range(20)])
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()[:16] == BEFORE[kind]


@pytest.mark.parametrize("slides", [3, 100])
def test_a_draw_depends_on_the_step_alone(slides):
    one, other = (sampler([50] * slides, 60) for _ in range(2))
    drawn = [one.draw(step) for step in range(9)]
    assert all(np.array_equal(other.draw(step), drawn[step]) for step in (8, 3, 0))


def test_spare_tiles_are_others_and_all_of_them_in_a_small_corpus():
    small, large = sampler([10, 3], 8), sampler([1000] * 9, 20)
    every = np.concatenate([small.draw(5), small.spares(5)])
    assert sorted(every) == list(range(13))
    assert not np.isin(large.spares(5), large.draw(5)).any()
    assert len(np.unique(large.spares(5))) >= 60


@pytest.mark.parametrize("world", [1, 2])
def test_a_tile_that_cannot_be_decoded_is_replaced_by_one_from_outside_the_batch(
    tmp_path, caplog, world
):
    corpus = open_corpus(write_tiles(tmp_path, slides=4, each=6))
    for broken in ("s0/1.png", "s2/3.png", "s3/0.png"):
        (tmp_path / broken).write_bytes(b"not an image")
    tested = make_sampler(corpus, batch=20, seed=0)  # of 21 that can be decoded
    with caplog.at_level(logging.CRITICAL):
        shares = [
            dict(batches(corpus, tested, canvas=48, start=0, stop=4, rank=r, world=world))
            for r in range(world)
        ]
    for step in range(4):
        joint = np.concatenate([share[step].indices.numpy() for share in shares])
        assert len(np.unique(joint)) >= 20 - (world > 1)
        assert not {corpus.keys[i] for i in joint} & {"s0/1.png", "s2/3.png", "s3/0.png"}
    first = shares[0][0]
    pixels = np.asarray(Image.open(tmp_path / corpus.keys[int(first.indices[0])]))
    assert np.array_equal(first.tiles[0].permute(1, 2, 0).numpy(), pixels)


def test_a_run_is_of_neighbours_of_one_slide_each_once():
    sizes = [30, 11, 200, 50, 9, 40]
    tested = sampler(sizes, 4, run=8)
    for step in range(0, 400, 8):
        block = np.stack([tested.draw(s) for s in range(step, step + 8)])
        slides = np.searchsorted(tested.slide_starts, block, "right") - 1
        assert (slides == slides[0]).all()
        assert len(set(slides[0])) == 4
        for run, slide in zip(block.T, slides[0], strict=True):
            places, size = np.sort(run - tested.slide_starts[slide]), sizes[slide]
            gaps = np.diff(np.append(places, places[0] + size))
            assert sorted(gaps) == sorted([1] * 7 + [size - 7])  # around the slide's end, too


def test_every_tile_is_drawn_as_often_in_runs_as_singly():
    sizes, steps = [3, 20, 9, 40], 12_000
    counts = [
        np.bincount(np.concatenate([tested.draw(step) for step in range(steps)]), minlength=72)
        for tested in (sampler(sizes, 2), sampler(sizes, 2, run=8))
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.15)


@pytest.mark.parametrize(("sizes", "batch"), [([1000] * 10, 256), ([3, 500, 2, 1], 300), ([9], 9)])
def test_no_tile_twice_in_a_batch_of_runs_while_there_are_others(sizes, batch):
    tested = sampler(sizes, batch, run=8)
    for step in range(20):
        assert len(np.unique(tested.draw(step))) == batch
        assert not np.isin(tested.spares(step), tested.draw(step)).any()


def test_a_slide_shorter_than_a_run_begins_again():
    block = sampler([3], 1, run=8).block(0)
    assert sorted(np.bincount(block[:, 0])) == [2, 3, 3]


def test_a_draw_in_runs_depends_on_the_step_alone():
    one, other = (sampler([50] * 9, 6, run=8) for _ in range(2))
    drawn = [one.draw(step) for step in range(30)]
    assert all(np.array_equal(other.draw(step), drawn[step]) for step in (29, 3, 17, 0))
    assert not np.array_equal(drawn[7] // 50, drawn[8] // 50)
