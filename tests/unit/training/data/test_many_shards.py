"""Corpora of many shards: files stay open, one index of all shards is kept, mapped and renewed."""

import logging
import os
import pickle
import threading

import numpy as np
import pytest
from small_shards import tile, tiles_of, write_tar

from pathencoder.errors import ConfigError, ImageError
from training.data import joint_index, open_files, shards
from training.data.corpus import open_corpus
from training.data.open_files import OpenFiles, Place
from training.data.sources import Folder

pytestmark = pytest.mark.full


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A corpus of twelve shards of two tiles, which count as many; tile i is of grey i // 2."""
    monkeypatch.setattr(joint_index, "_MANY", 5)
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "corpus"
    rows = ["slide,shard,first,tiles"]
    for s in range(12):
        (root / f"f{s % 3}").mkdir(parents=True, exist_ok=True)
        write_tar(root / f"f{s % 3}/{s}.tar", [(f"{i}.png", tile(s)) for i in range(2)])
        rows.append(f"s{s:02},f{s % 3}/{s}.tar,0,2")
    (root / "slides.csv").write_text("\n".join(rows) + "\n")
    return root


def counted(monkeypatch):
    """The files that are opened and asked for their status from here on."""
    seen = {"open": [], "stat": []}
    plain = {"open": os.open, "stat": os.stat}
    for name, act in plain.items():
        monkeypatch.setattr(
            os, name, lambda *a, n=name, f=act, **k: seen[n].append(a[0]) or f(*a, **k)
        )
    return seen


def scanned(monkeypatch):
    """The shards whose headers are read from here on."""
    read, plain = [], Folder.members
    monkeypatch.setattr(Folder, "members", lambda self, n: read.append(n) or plain(self, n))
    return read


def test_a_tile_costs_no_open_and_no_stat_once_its_shard_is_open(many, monkeypatch):
    corpus = open_corpus(many)
    for i in range(24):
        corpus.read(i)
    seen = counted(monkeypatch)
    assert [int(corpus.read(i)[0, 0, 0]) for i in range(24)] == [10 * (i // 2) for i in range(24)]
    assert seen == {"open": [], "stat": []}


def test_the_index_of_all_shards_is_kept_and_renewed_for_a_changed_shard(many, monkeypatch):
    before = tiles_of(open_corpus(many))
    assert (many / ".shards.index").is_file()
    read = []
    plain = Folder.members
    monkeypatch.setattr(
        Folder, "members", lambda self, name: read.append(name) or plain(self, name)
    )
    assert tiles_of(open_corpus(many)) == before
    assert read == []
    write_tar(many / "f1/4.tar", [("0.png", tile(20)), ("1.png", tile(21))])
    assert tiles_of(open_corpus(many)) == {**before, "s04/f1/4.tar#0": 20, "s04/f1/4.tar#1": 21}
    assert read == ["f1/4.tar"]
    assert [p.name for p in many.iterdir() if p.name.startswith(".")] == [".shards.index"]


@pytest.mark.parametrize("spoil", [b"", b"no index", None])
def test_a_damaged_index_of_all_shards_is_made_again(many, spoil):
    before = tiles_of(open_corpus(many))
    file = many / ".shards.index"
    file.write_bytes(file.read_bytes()[:-9] if spoil is None else spoil)
    assert tiles_of(open_corpus(many)) == before
    assert len(joint_index._load(file).names) == 12


def test_beside_a_read_only_corpus_the_index_is_in_the_cache(many, monkeypatch):
    plain = joint_index.whole_file

    def refuse(file):
        if file.parent == many:
            raise joint_index.StoreError(f"cannot write {file}: read-only")
        return plain(file)

    monkeypatch.setattr(joint_index, "whole_file", refuse)
    corpus = open_corpus(many)
    assert not (many / ".shards.index").exists()
    assert corpus.tiles.index.file.parent == many.parent / "cache"
    assert open_corpus(many).tiles.index.file == corpus.tiles.index.file


def test_without_any_place_for_the_index_the_corpus_is_read(many, monkeypatch, caplog):
    monkeypatch.setattr(Folder, "index_files", lambda self: [many / "slides.csv" / "x"])
    assert tiles_of(open_corpus(many))["s07/f1/7.tar#1"] == 7
    assert "the index of 12 shards cannot be kept" in caplog.text


def test_processes_that_start_together_make_the_index_once(many, monkeypatch):
    read, plain = [], Folder.members
    monkeypatch.setattr(
        Folder, "members", lambda self, name: read.append(name) or plain(self, name)
    )
    threads = [threading.Thread(target=open_corpus, args=(many,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 12


def test_the_index_is_mapped_again_in_another_process_not_copied(many):
    corpus = open_corpus(many)
    data = pickle.dumps(corpus)
    assert tiles_of(pickle.loads(data)) == tiles_of(corpus)
    assert corpus.tiles.index.ranges.tobytes() not in data
    write_tar(many / "f1/4.tar", [(f"{i}.png", tile(9)) for i in range(5)])
    open_corpus(many)
    with pytest.raises(ConfigError, match="was replaced during the start"):
        pickle.loads(data)


def test_a_shard_that_grew_since_the_start_is_not_read(many):
    corpus = open_corpus(many)
    write_tar(many / "f0/0.tar", [(f"{i}.png", tile(9)) for i in range(30)])
    open_files.close_files()
    with pytest.raises(ImageError, match=r"0\.tar has \d+ bytes, and had \d+ when the corpus was"):
        corpus.read(0)


def test_a_damaged_shard_is_reported_at_every_start(many, caplog):
    (many / "f2/2.tar").write_bytes((many / "f2/2.tar").read_bytes()[:1500])
    for _ in range(2):
        caplog.clear()
        assert len(open_corpus(many)) == 23
        assert "2.tar is cut short: its first 1 tiles are whole, 1 others are" in caplog.text


def test_no_more_files_stay_open_than_allowed(tmp_path):
    files = OpenFiles(most=3)
    for i in range(6):
        (tmp_path / f"{i}").write_bytes(bytes([i] * 9))
    for i in (0, 1, 2, 0, 3, 4, 0, 5):
        assert files.read(Place(tmp_path / f"{i}", 2, 4)) == bytes([i] * 4)
    assert [path.name for path in files._files] == ["4", "0", "5"]
    files.close()


def test_a_quarter_of_the_open_files_of_a_process_may_be_shards():
    assert 64 <= open_files.most_open() <= open_files.MOST_FILES
    assert open_files.allow(70) == 70


def test_indices_beside_the_shards_are_used(many, monkeypatch, caplog):
    for shard in many.rglob("*.tar"):
        shards.write_index(shard)
    monkeypatch.setattr(Folder, "members", None)
    with caplog.at_level(logging.INFO):
        assert len(open_corpus(many)) == 24


def test_content_is_that_of_a_copy_and_not_of_another_tile(many):
    before = open_corpus(many).tiles.content()
    shard = many / "f1/4.tar"
    os.utime(shard, ns=(1, 1))
    assert open_corpus(many).tiles.content() == before
    write_tar(shard, [("0.png", tile(4)), ("1.png", tile(5))])
    assert open_corpus(many).tiles.content() != before


def test_ranges_that_no_tar_has_are_marked():
    found = joint_index._blocks(np.array([[512, 9], [-512, 9], [700, 9], [512, 1 << 40]]))
    assert found.tolist() == [[1, 9], *[[joint_index._NONE] * 2] * 3]
