"""Reading at random from many small shards opens each shard and its index once."""

from pathlib import Path

import pytest
from small_shards import tile, write_tar

from training.data import shards
from training.data.corpus import open_corpus

pytestmark = pytest.mark.full


def test_many_shards_are_opened_once(tmp_path, monkeypatch):
    rows = ["slide,shard,first,tiles"]
    for s in range(300):
        write_tar(tmp_path / f"p{s}.tar", [("0.png", tile(1))])
        shards.write_index(tmp_path / f"p{s}.tar")
        rows.append(f"s{s},p{s}.tar,0,1")
    (tmp_path / "slides.csv").write_text("\n".join(rows) + "\n")
    corpus = open_corpus(tmp_path)
    monkeypatch.setattr(shards, "_FILES", shards._OpenFiles(most=300))
    opened, plain = [], Path.open
    for i in range(300):
        corpus.read(i)
    monkeypatch.setattr(Path, "open", lambda self, *a: opened.append(self) or plain(self, *a))
    for i in range(300):
        corpus.read(i)
    shards.close_files()
    assert opened == []


def test_no_more_shards_stay_open_than_a_process_may_have():
    assert 64 <= shards._most_open() <= 4096
