"""Runs of neighbouring tiles from an object store: requests, the same batches everywhere."""

import logging

import numpy as np
import pytest
from object_servers import web_server
from small_shards import tile, write_tar

from pathencoder.errors import StoreError
from pathencoder.remote.objects import store_of
from training import config
from training.data import remote
from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.sampler import make_sampler
from training.data.shards import write_index
from training.trainer.changes import changes

pytestmark = pytest.mark.full
obstore = pytest.importorskip("obstore")

SLIDES, TILES, BROKEN = 6, 24, "s2/2.tar#16"  # drawn at steps 0 and 11


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Six shards of a slide each; one tile is no image, and one slide has three tiles only."""
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    root, rows = tmp_path / "local", ["slide,shard,first,tiles"]
    root.mkdir()
    for s in range(SLIDES):
        count = 3 if s == 4 else TILES
        members = [(f"{i}.png", tile((s + i) % 25)) for i in range(count)]
        if s == 2:
            members[16] = ("16.png", b"not an image" * 8)
        write_index(write_tar(root / f"{s}.tar", members))
        rows.append(f"s{s},{s}.tar,0,{count}")
    (root / "slides.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def web(local):
    """The same on a web server, which counts requests."""
    with web_server({f.name: f.read_bytes() for f in local.iterdir()}) as held:
        yield held
    store_of.cache_clear()


def read(corpus, run, start=0, stop=20, batch=4, world=1, **options):
    """Indices and pixels of all steps, over all training processes."""
    sampler = make_sampler(corpus, batch=batch, seed=3, run=run)
    parts = [
        [
            (b.indices.numpy(), b.tiles.numpy())
            for _, b in batches(
                corpus, sampler, canvas=8, start=start, stop=stop, rank=r, world=world, **options
            )
        ]
        for r in range(world)
    ]
    out = []
    for step in zip(*parts, strict=True):
        indices = np.concatenate([indices for indices, _ in step])
        order = np.argsort(indices)
        out.append((indices[order], np.concatenate([pixels for _, pixels in step])[order]))
    return out


def assert_same(one, other):
    assert len(one) == len(other)
    for (indices, pixels), (others, other_pixels) in zip(one, other, strict=True):
        assert np.array_equal(indices, others)
        assert np.array_equal(pixels, other_pixels)


def test_a_run_is_one_request(web):
    corpus = open_corpus(web.address)
    asked = []
    for run in (1, 8):
        before = len(web.ranges)
        read(corpus, run, stop=32, batch=3)
        asked.append(len(web.ranges) - before)
    # 12 runs; a few tiles of its own for each that is not an image, and replaced
    assert asked[0] >= 80
    assert 12 <= asked[1] <= 16


def test_bytes_between_distant_tiles_are_not_fetched(web, monkeypatch):
    corpus = open_corpus(web.address)
    monkeypatch.setattr(remote, "_NEAR", 1024)  # a header, and what fills the last block
    before = len(web.ranges)
    found = corpus.fetch([0, 1, 2, 20])
    assert list(found) == [0, 1, 2, 20]
    last, first = (corpus.tiles.place(i) for i in (20, 0))
    third = corpus.tiles.place(2)
    assert sorted(web.ranges[before:]) == sorted(
        f"bytes={a.offset}-{b.offset + b.size - 1}" for a, b in ((first, third), (last, last))
    )


def test_nothing_is_fetched_beyond_the_last_step(web):
    corpus = open_corpus(web.address)
    before = len(web.ranges)
    read(corpus, 8, stop=8, batch=3)
    assert len(web.ranges) - before == 3 + 1  # a tile that is no image is replaced


def test_batches_are_those_of_local_shards(local, web):
    here, there = open_corpus(local), open_corpus(web.address)
    expected = read(here, 8)
    assert_same(read(there, 8, threads=3), expected)
    assert_same(read(there, 8, keep_mb=1), expected)
    assert_same(read(open_corpus(web.address, cache_mb=4), 8), expected)


def test_training_resumes_in_the_middle_of_a_run(web):
    corpus = open_corpus(web.address)
    expected = read(corpus, 8)
    for start in (1, 7, 8, 13):
        assert_same(read(corpus, 8, start=start), expected[start:])


def test_training_processes_share_the_tiles_of_a_step(web):
    corpus = open_corpus(web.address)
    sampler = make_sampler(corpus, batch=4, seed=3, run=8)
    for start in (0, 5):
        for step, (indices, _) in enumerate(read(corpus, 8, start=start, world=2), start):
            same = len(np.intersect1d(indices, sampler.draw(step)))
            assert same >= 3 + (BROKEN not in [corpus.keys[i] for i in sampler.draw(step)])


@pytest.mark.slow
@pytest.mark.parametrize("cache_mb", [0, 4])
def test_decoding_processes_make_the_same_batches(web, cache_mb):
    corpus = open_corpus(web.address, cache_mb=cache_mb)
    before = len(web.ranges)
    made = read(corpus, 8, stop=48, processes=2)
    asked = len(web.ranges) - before
    assert_same(made, read(open_corpus(web.address), 8, stop=48))
    # 24 runs of 4 places; without a cache each process asks for its half of a run
    assert asked <= (40 if cache_mb else 56)


def test_a_tile_that_is_no_image_is_replaced_and_its_run_goes_on(web, caplog):
    corpus = open_corpus(web.address)
    with caplog.at_level(logging.WARNING):
        made = read(corpus, 8, stop=20)
    sampler = make_sampler(corpus, batch=4, seed=3, run=8)
    broken = corpus.keys.index(BROKEN)
    drawn = [sampler.draw(step) for step in range(20)]
    at = [step for step, tiles in enumerate(drawn) if broken in tiles]
    assert at == [0, 11]
    assert caplog.text.count("skipped") == 1
    for step, (indices, _) in enumerate(made):
        assert broken not in indices
        assert len(np.intersect1d(indices, drawn[step])) == 4 - (step in at)


def test_a_store_that_fails_while_runs_are_prepared_ends_the_training(web, monkeypatch):
    corpus = open_corpus(web.address)
    monkeypatch.setattr(remote, "_TRIES", 2)
    plain, calls = obstore.get_ranges, []

    def fail(*args, **options):
        calls.append(args)
        if len(calls) > 6:
            raise OSError("connection reset")
        return plain(*args, **options)

    monkeypatch.setattr(obstore, "get_ranges", fail)
    with pytest.raises(StoreError, match="The same command resumes the run"):
        read(corpus, 8, stop=160)


def test_the_run_of_a_corpus_is_recorded_and_that_of_an_older_checkpoint_is_one(tmp_path):
    (tmp_path / "r.yaml").write_text("method: {name: simclr}\ndata: {root: 's3://bucket/a'}\n")
    cfg = config.load(tmp_path / "r.yaml", ["out=x", "steps=1"])
    settings = config.settings_of_run(cfg, half=False)
    assert settings["data"]["run"] == 8
    older = {**settings, "data": {k: v for k, v in settings["data"].items() if k != "run"}}
    assert changes(older, settings, 0) == ["data.run was 1, is 8"]
    local = config.load(tmp_path / "r.yaml", ["out=x", "steps=1", f"data.root={tmp_path}"])
    assert local.data.run == 1
