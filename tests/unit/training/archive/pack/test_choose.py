"""Which tiles are chosen: by colour and place, the same everywhere."""

import numpy as np
import pytest

from pathencoder.slides.tissue import TissueMask
from training.archive.pack import choose as chosen
from training.archive.pack.hashes import as_text, from_text, hash_of, near

SIDE = 64.0


def painted(colours):
    """Tissue of 20 x 20 tiles, each of one colour by its column; the corners of its tiles."""
    picture = np.zeros((160, 160, 3), np.uint8)
    for column, colour in enumerate(colours):
        picture[:, 8 * column : 8 * column + 8] = colour
    tissue = TissueMask(np.ones((160, 160), bool), (0, 0), (8.0, 8.0), picture=picture)
    xs, ys = np.meshgrid(np.arange(20) * 64, np.arange(20) * 64)
    return tissue, np.stack([xs.ravel(), ys.ravel()], axis=1)


RARE = [(200, 150, 190)] * 19 + [(120, 80, 40)]


def test_rare_tissue_gets_more_than_its_area_and_no_cluster_is_left_out():
    tissue, corners = painted(RARE)
    found, cluster = chosen.choose(tissue, corners, SIDE, 60, "s")
    assert len(found) == len(set(found.tolist())) == len(cluster) == 60
    assert (np.diff(found) > 0).all()
    rare = corners[found, 0] == 19 * 64
    assert 8 <= rare.sum() <= 20  # by area it would be 3
    assert len(set(cluster[rare])) == 1
    assert set(cluster[rare]).isdisjoint(cluster[~rare])


def test_tiles_are_spread_over_the_slide():
    tissue, corners = painted([(200, 150, 190)] * 20)
    found, _ = chosen.choose(tissue, corners, SIDE, 64, "s")
    quarters = (corners[found] >= 640) @ (1, 2)
    assert np.bincount(quarters, minlength=4).tolist() == pytest.approx([16] * 4, abs=3)


def test_the_choice_depends_on_the_slide_alone():
    tissue, corners = painted(RARE)
    one = chosen.choose(tissue, corners, SIDE, 30, "a")[0]
    assert (one == chosen.choose(tissue, corners, SIDE, 30, "a")[0]).all()
    assert (one != chosen.choose(tissue, corners, SIDE, 30, "b")[0]).any()


@pytest.mark.parametrize("count", [0, 400, 1000])
def test_all_tiles_where_all_are_asked_for(count):
    tissue, corners = painted(RARE)
    assert chosen.choose(tissue, corners, SIDE, count, "s")[0].tolist() == list(range(400))


def test_fewer_tiles_than_clusters_and_no_tile_at_all():
    tissue, corners = painted([(20 * i, 100, 250 - 10 * i) for i in range(20)][:12] * 1 + RARE[:8])
    found, _ = chosen.choose(tissue, corners, SIDE, 3, "s")
    assert len(found) == 3
    found, cluster = chosen.choose(tissue, corners[:0], SIDE, 3, "s")
    assert (len(found), len(cluster)) == (0, 0)


def test_shares_are_whole_and_at_most_what_there_is():
    sizes = np.array([10_000, 100, 3, 0, 1])
    for count in (1, 4, 50, 500, 10_104):
        given = chosen.shares(sizes, count)
        assert given.sum() == count
        assert (given <= sizes).all()


def test_near_pictures_are_found_and_others_are_not():
    random = np.random.default_rng(0)
    tiles = [random.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)]
    noisy = np.clip(tiles[7].astype(int) + random.integers(-2, 3, (64, 64, 3)), 0, 255)
    hashes = np.stack([hash_of(t) for t in [*tiles, noisy.astype(np.uint8), tiles[3]]])
    pairs = near(hashes, 2)
    assert (3, 41) in pairs
    assert (7, 40) in pairs
    assert len(pairs) == 2
    assert (from_text(as_text(hash_of(tiles[0], 16))) == hash_of(tiles[0], 16)).all()


def test_no_near_pair_is_missed():
    random = np.random.default_rng(1)
    base = random.integers(0, 2**63, 50).astype(np.uint64)
    flipped = base ^ np.uint64(1 << 5) ^ np.uint64(1 << 40)
    hashes = np.concatenate([base, flipped])[:, None]
    assert near(hashes, 2) == [(i, i + 50) for i in range(50)]
    assert near(hashes, 1) == []
