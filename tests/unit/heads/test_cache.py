"""The cache of features: what decides a row is in its key, and damage costs only time."""

import dataclasses
import os
import threading

import numpy as np
import pytest
import small_encoders

from pathencoder import weights_digest as kept_digests
from pathencoder.heads import cache as caches
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.embed import contents_of, embed
from pathencoder.heads.encoder_record import EncoderRecord, weights_digest


@pytest.fixture
def store(tmp_path):
    return FeatureCache(tmp_path / "cache")


def record(**changes):
    made = EncoderRecord.of(small_encoders.shared("cnn"), "embedding", None)
    return dataclasses.replace(made, **changes)


def rows(count, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, 256)).astype(np.float32)
    return [bytes([seed, n]) * 8 for n in range(count)], list(x)


def test_rows_come_back_bitwise(store):
    contents, x = rows(5)
    store.write(record(), contents, x)
    found = store.read(record(), [*contents[1:], b"\xff" * 16, b""])
    assert list(found) == contents[1:]
    np.testing.assert_array_equal(np.stack(list(found.values())), x[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "other"},
        {"output": "mean"},
        {"transform": "other"},
        {"image_mpp": 0.5},
        {"precision": "bf16"},
        {"views": 4},
    ],
)
def test_what_decides_the_numbers_is_in_the_key(store, change):
    contents, x = rows(2)
    store.write(record(), contents, x)
    assert store.read(record(**change), contents) == {}
    assert len(store.read(record(name="renamed", folder="elsewhere"), contents)) == 2


def test_a_damaged_file_is_deleted_and_the_rest_is_read(store, caplog):
    for seed in (1, 2):
        store.write(record(), *rows(3, seed))
    file = sorted(store.root.rglob("*.safetensors"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    wanted = rows(3, 1)[0] + rows(3, 2)[0]
    assert len(store.read(record(), wanted)) == 3
    assert "is damaged" in caplog.text
    assert not file.exists()


def test_many_files_become_one(store, monkeypatch):
    monkeypatch.setattr(caches, "_MANY", 3)
    for seed in range(4):
        store.write(record(), *rows(2, seed))
    assert len(list(store.root.rglob("*.safetensors"))) == 1
    assert len(store.read(record(), [c for s in range(4) for c in rows(2, s)[0]])) == 8


def test_two_writers_at_once_lose_nothing(store, monkeypatch):
    monkeypatch.setattr(caches, "_MANY", 3)

    def work(start):
        for seed in range(start, start + 6):
            store.write(record(), *rows(2, seed))

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seeds = [*range(6), *range(100, 106)]
    assert len(store.read(record(), [c for s in seeds for c in rows(2, s)[0]])) == 24


def test_entries_and_clearing(store):
    store.write(record(), *rows(3))
    store.write(record(name="two", digest="x"), *rows(2))
    old = store.root / "features-0" / "three"
    old.mkdir(parents=True)
    (old / "rows.bin").write_bytes(b"old")
    (store.root / "other").mkdir()
    found = {e.encoder: e for e in store.entries()}
    assert (found["small-cnn"].rows, found["two"].rows, found["three"].rows) == (3, 2, None)
    assert not found["three"].current
    assert found["two"].size > 2 * 256 * 4
    assert [e.encoder for e in store.clear("two")] == ["two"]
    assert len(store.clear()) == 2
    assert store.entries() == []
    assert (store.root / "other").is_dir()


def test_a_disk_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    FeatureCache(tmp_path / "file").write(record(), *rows(1))
    assert "features are not kept" in caplog.text
    assert "PATHENCODER_CACHE" in caplog.text


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "mine"))
    assert caches.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("PATHENCODER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert caches.cache_folder() == tmp_path / ".cache/pathencoder"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.cache_folder() == tmp_path / "xdg/pathencoder"
    monkeypatch.setattr("sys.platform", "darwin")
    assert caches.cache_folder() == tmp_path / "Library/Caches/pathencoder"


def test_each_content_is_embedded_once(store, tmp_path):
    encoder = small_encoders.shared("cnn")
    from PIL import Image

    for n in range(3):
        Image.fromarray(small_encoders.picture(n % 2)).save(tmp_path / f"{n}.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "copy.png").write_bytes(b"bad")
    paths = [tmp_path / name for name in ("0.png", "1.png", "2.png", "bad.png", "copy.png")]
    names = [p.name for p in paths]
    first = embed(encoder, record(), paths, names, cache=store, progress=False)
    assert (first.new, sorted(first.errors)) == (2, [3, 4])
    assert "copy.png" in str(first.errors[4])
    np.testing.assert_array_equal(first.rows[0], first.rows[2])
    np.testing.assert_array_equal(first.rows[:2], encoder.encode(paths[:2], progress=False))
    again = embed(encoder, record(), paths[:3], names[:3], cache=store, progress=False)
    assert again.new == 0
    np.testing.assert_array_equal(again.rows, first.rows[:3])
    os.utime(paths[0])  # the content counts, not the date
    assert embed(encoder, record(), paths[:1], names[:1], cache=store, progress=False).new == 0
    assert contents_of([small_encoders.picture(0)]) != contents_of([small_encoders.picture(1)])


@pytest.mark.parametrize("small", [0, 1 << 30])
def test_the_digest_follows_changes_in_place(monkeypatch, small):
    monkeypatch.setattr(kept_digests, "_SMALL", small)
    encoder = small_encoders.encoder("cnn")
    before = weights_digest(encoder)
    assert weights_digest(encoder) == before == weights_digest(small_encoders.encoder("cnn"))
    encoder.network.load_state_dict({k: v * 2 for k, v in encoder.network.state_dict().items()})
    digests = [before, weights_digest(encoder)]
    weight = max(encoder.network.parameters(), key=lambda p: p.numel())
    other = encoder_of_another_seed(encoder)
    for change in (
        lambda: weight.data.view(-1)[7].add_(1e-6),
        lambda: weight.data.copy_(weight.data.flip(0)),  # the same values in other places
        lambda: [
            mine.data.lerp_(theirs.data, 0.01)
            for mine, theirs in zip(encoder.parameters(), other.parameters(), strict=True)
        ],
    ):
        change()
        digests.append(weights_digest(encoder))
    assert len(set(digests)) == 5
    assert weights_digest(encoder) == digests[-1]


def encoder_of_another_seed(encoder):
    """An encoder of the same shape with other weights."""
    other = small_encoders.encoder("cnn")
    other.network.load_state_dict({k: v + 1 for k, v in encoder.network.state_dict().items()})
    return other


def test_a_digest_is_kept_for_a_large_encoder(monkeypatch):
    monkeypatch.setattr(kept_digests, "_SMALL", 0)
    encoder = small_encoders.encoder("cnn")
    before = weights_digest(encoder)
    monkeypatch.setattr(kept_digests, "digest_of", lambda _: pytest.fail("it was hashed again"))
    assert weights_digest(encoder) == before


def test_a_file_that_another_process_removes_meanwhile_is_not_counted(store, monkeypatch):
    encoder = small_encoders.shared("cnn")
    record = EncoderRecord.of(encoder, "embedding", None)
    store.write(record, [b"a" * 16], [np.zeros(record.dim, np.float32)])
    (entry,) = store.entries()
    gone = entry.folder / ".merged.incomplete"
    real = caches.Path.rglob
    monkeypatch.setattr(caches.Path, "rglob", lambda self, what: [*real(self, what), gone])
    assert store.entries() == [entry]
