"""Corpora in a loopback S3 and on a web server: the same tiles as locally, broken connections."""

import logging
import shutil
import threading

import numpy as np
import pytest
from object_servers import s3_bucket, s3_server, web_server
from small_shards import tile, tiles_of, write_tar

from pathencoder.errors import ConfigError, ImageError, StoreError
from pathencoder.remote.objects import store_of
from training import config
from training.data import joint_index, remote
from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.range_cache import RangeCache
from training.data.sampler import make_sampler
from training.data.shards import index_path, write_index

pytestmark = pytest.mark.full
obstore = pytest.importorskip("obstore")


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("moto")
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSE", 0.001)


@pytest.fixture
def bucket(address, monkeypatch, request):
    """Uploads a folder: bucket(folder); its URL."""
    with s3_bucket(address, f"b{abs(hash(request.node.name))}", monkeypatch) as url:

        def put(folder):
            for file in folder.rglob("*"):
                if file.is_file() and not file.name.startswith("."):
                    key = f"tiles/{file.relative_to(folder).as_posix()}"
                    obstore.put(store_of(url), key, file.read_bytes())
            return f"{url}/tiles"

        yield put


@pytest.fixture
def local(tmp_path):
    """Four shards of three tiles in nested folders, with slides.csv; shard s has tiles 3s + i."""
    root = tmp_path / "local"
    rows = ["slide,shard,first,tiles"]
    for s in range(4):
        folder = root / "ab"[s % 2] / "c"
        folder.mkdir(parents=True, exist_ok=True)
        members = [(f"x{s}/{i}.png", tile(3 * s + i)) for i in range(3)]
        write_tar(folder / f"{s}.tar", members)
        rows.append(f"s{s},{'ab'[s % 2]}/c/{s}.tar,0,3")
    (root / "slides.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("indexed", [False, True])
def test_a_corpus_in_s3_is_the_local_one(local, bucket, indexed, monkeypatch):
    if indexed:
        for shard in local.rglob("*.tar"):
            write_index(shard)
    here, there = open_corpus(local), open_corpus(bucket(local))
    assert tiles_of(there) == tiles_of(here)
    assert (there.digest, there.tiles.content()) == (here.digest, here.tiles.content())
    if indexed:
        monkeypatch.setattr(remote, "members_in", None)
        open_corpus(there.source.url)


def test_shards_alone_are_a_corpus(local, bucket):
    (local / "slides.csv").unlink()
    here, there = open_corpus(local), open_corpus(bucket(local))
    assert here.slide_names == there.slide_names == ["x0", "x1", "x2", "x3"]
    assert tiles_of(there) == tiles_of(here)
    with pytest.raises(ConfigError, match=r"data\.stains=\[he\]: .* has no manifest\.csv"):
        open_corpus(local, stains=("he",))


def test_images_at_the_top_of_a_tar_are_of_the_slide_that_it_is(tmp_path):
    (tmp_path / "a").mkdir()
    write_tar(tmp_path / "a/one.tar", [("0.png", tile(1)), ("1.png", tile(2))])
    assert open_corpus(tmp_path).slide_names == ["a/one"]


def test_batches_from_s3_are_those_from_the_disk(local, bucket):
    here, there = open_corpus(local), open_corpus(bucket(local))
    drawn = [
        dict(batches(c, make_sampler(c, batch=5, seed=3), canvas=32, start=2, stop=6, threads=2))
        for c in (here, there)
    ]
    for step in range(2, 6):
        assert np.array_equal(drawn[0][step].tiles.numpy(), drawn[1][step].tiles.numpy())


@pytest.mark.slow
def test_decoding_processes_read_from_s3(local, bucket):
    corpus = open_corpus(bucket(local))
    sampler = make_sampler(corpus, batch=4, seed=0)
    ((_, batch),) = batches(corpus, sampler, canvas=32, start=0, stop=1, processes=1)
    values = batch.tiles.numpy()[:, 0, 0, 0] // 10
    assert list(values) == [tiles_of(corpus)[corpus.tiles.key(i)] for i in batch.indices.tolist()]


def test_an_index_of_another_tar_is_not_used(local, bucket, caplog):
    write_index(local / "a/c/0.tar")
    write_index(local / "a/c/2.tar")
    others = [("x.png", tile(7)), ("1.txt", b"{}"), ("2.txt", b"{}")]  # a tar of the same size
    write_tar(local / "a/c/0.tar", others)
    shutil.copy(index_path(local / "a/c/2.tar"), index_path(local / "b/c/1.tar"))
    (local / "slides.csv").write_text("slide,shard,first,tiles\ns,a/c/0.tar,0,1\nt,b/c/1.tar,0,3\n")
    assert list(tiles_of(open_corpus(bucket(local))).values()) == [7, 3, 4, 5]
    assert "0.tar.index.npy is of another tar than s3://" in caplog.text


def test_the_index_of_all_shards_is_kept_and_renewed_for_a_changed_object(
    local, bucket, monkeypatch
):
    monkeypatch.setattr(joint_index, "_MANY", 2)
    url = bucket(local)
    before = tiles_of(open_corpus(url))
    read, plain = [], remote.Bucket.members
    monkeypatch.setattr(remote.Bucket, "members", lambda self, n: read.append(n) or plain(self, n))
    write_tar(local / "a/c/2.tar", [(f"x2/{i}.png", tile(i)) for i in range(3)])
    bucket(local)
    changed = {f"s2/a/c/2.tar#{i}": i for i in range(3)}
    assert tiles_of(open_corpus(url)) == {**before, **changed}
    assert read == ["a/c/2.tar"]


def test_fetched_tiles_are_kept_within_the_budget(local, bucket, monkeypatch):
    corpus = open_corpus(bucket(local), cache_mb=1)
    first = tiles_of(corpus)
    monkeypatch.setattr(obstore, "get_ranges", None)  # all are in the cache
    assert tiles_of(corpus) == first
    cache = corpus.source._cache
    for i in range(60):
        cache.put({f"large {i}-{j}": bytes(20_000) for j in range(3)})
    assert cache._do(cache._size) < 1.1 * (1 << 20)
    assert "large 59-2" in cache.get(["large 59-2", "large 0-0"])
    assert "large 0-0" not in cache.get(["large 0-0"])


def test_a_damaged_cache_is_not_used(tmp_path, caplog):
    (tmp_path / "x").write_bytes(b"no database" * 100)
    cache = RangeCache(tmp_path / "x", 1 << 20)
    cache.put({"a": b"1"})
    assert cache.get(["a"]) == {}
    assert caplog.text.count("is not used") == 1


def test_shards_are_indexed_several_at_a_time_and_in_order(local, bucket, monkeypatch):
    there = open_corpus(bucket(local))
    together = threading.Barrier(4, timeout=20)  # broken where they are read one after the other
    plain = remote.Bucket.ranges

    def ranges(self, name):
        together.wait()
        return plain(self, name)

    monkeypatch.setattr(remote.Bucket, "ranges", ranges)
    again = open_corpus(there.source.url)
    assert again.keys == there.keys
    assert [again.tiles.place(i).offset for i in range(12)] == [
        there.tiles.place(i).offset for i in range(12)
    ]


def test_an_error_of_a_shard_ends_the_indexing(local, bucket, monkeypatch):
    def ranges(self, name):
        if name.endswith("2.tar"):
            raise StoreError("no answer")
        return None

    monkeypatch.setattr(remote.Bucket, "ranges", ranges)
    with pytest.raises(StoreError, match="no answer"):
        open_corpus(bucket(local))


def test_a_missing_shard_is_an_error_of_its_tiles(local, bucket):
    corpus = open_corpus(bucket(local))
    obstore.delete(store_of(corpus.source.url), "a/c/0.tar")
    with pytest.raises(ImageError, match=r"tile s0/a/c/0\.tar#0 .*: s3://.* is missing"):
        corpus.read(0)
    assert int(corpus.read(3)[0, 0, 0]) == 30


@pytest.fixture
def web(local):
    with web_server(
        {f.relative_to(local).as_posix(): f.read_bytes() for f in local.rglob("*") if f.is_file()}
    ) as held:
        yield held
    store_of.cache_clear()


def test_a_broken_connection_is_tried_again(web, caplog):
    corpus = open_corpus(web.address)
    web.breaks, web.break_after = 2, 10
    with caplog.at_level(logging.WARNING):
        assert list(tiles_of(corpus).values()) == list(range(12))
    assert web.breaks == 0


def test_a_server_that_does_not_answer_ends_the_run_and_spoils_no_tile(web, monkeypatch):
    corpus = open_corpus(web.address)
    monkeypatch.setattr(remote, "_TRIES", 2)

    def fail(*args, **options):
        raise OSError("connection reset")

    with monkeypatch.context() as broken:
        broken.setattr(obstore, "get_ranges", fail)
        with pytest.raises(StoreError, match="The same command resumes the run"):
            corpus.read(0)
        sampler = make_sampler(corpus, batch=4, seed=0)
        with pytest.raises(StoreError):
            next(batches(corpus, sampler, canvas=32, start=0, stop=1))
    assert int(corpus.read(0)[0, 0, 0]) == 0


def test_a_web_server_needs_a_table(web):
    del web.files["slides.csv"]
    with pytest.raises(ConfigError, match=r"does not list its files. Add a slides\.csv"):
        open_corpus(web.address)


def test_the_root_of_a_recipe_may_be_a_url(tmp_path):
    (tmp_path / "r.yaml").write_text("method: {name: simclr}\ndata: {root: 's3://bucket/a'}\n")
    cfg = config.load(tmp_path / "r.yaml", ["out=x", "steps=1"])
    assert str(cfg.data.root) == "s3://bucket/a"
    assert config.check(config.dump(cfg)).data.root == cfg.data.root
