"""What tests of heads share: a cache of features of their own, and tiles of two classes."""

import pytest
import small_tiles


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiles(tmp_path):
    return small_tiles.folder(tmp_path / "tiles")
