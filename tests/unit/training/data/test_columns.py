"""Tables by columns: the values of read_table, texts in one block, the digest of names."""

import numpy as np
import pytest

from pathencoder.errors import ConfigError
from pathencoder.tables import read_table
from training.data import columns
from training.data.columns import Texts, digest_of_texts, read_columns
from training.data.manifest import digest_of

pytestmark = pytest.mark.full

WORDS = ["b", "", "ä/1", "a", "ab", "𝄞", "z" * 40, "a"]


@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_a_table_by_columns_has_the_values_of_the_table(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(columns, "_CHUNK", chunk)
    file = tmp_path / "t.csv"
    file.write_text('Shard;key;slide\na;"x\ny";s\n\n b ; k;\na;ü;s;\n', encoding="utf-16")
    table, rows = read_columns(file, ("shard", "key"), blocks=("key",)), read_table(file)
    assert (table.columns, list(table.lines)) == (rows.columns, rows.lines)
    for name in rows.columns:
        assert list(table.texts(name)) == [row[name] for row in rows.rows]
        assert [table.get(i, name) for i in range(3)] == [row[name] for row in rows.rows]
    assert table.where(1) == rows.where(1)
    assert table.some("organ", np.arange(2)) == ["", ""]
    assert table.values["shard"] == ["a", "b"]


def test_the_errors_are_those_of_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("shard,key\na,b\na,b,c\n")
    with pytest.raises(ConfigError, match=r"line 3: 3 values, but the header has 2 columns"):
        read_columns(tmp_path / "t.csv", blocks=("key",))
    with pytest.raises(ConfigError, match="lacks the column 'slide'"):
        read_columns(tmp_path / "t.csv", ("slide",), blocks=("key",))


@pytest.mark.parametrize("chunk", [3, 100])
def test_texts_are_kept_sorted_and_taken(monkeypatch, chunk):
    monkeypatch.setattr(columns, "_CHUNK", chunk)
    texts = Texts.of(iter(WORDS))
    assert list(texts) == [texts[i] for i in range(len(texts))] == WORDS
    assert (texts[-1], texts[1:3]) == ("a", ["", "ä/1"])
    assert list(texts.take(np.array([5, 0, 0]))) == ["𝄞", "b", "b"]
    assert [WORDS[i] for i in np.argsort(texts.padded(), kind="stable")] == sorted(WORDS)
    assert digest_of_texts(texts.padded()) == digest_of(WORDS)
    assert list(Texts.of([])) == list(Texts.of([]).padded()) == []
