"""A head from the loopback Hub, with its encoder."""

import numpy as np
import pytest
import small_bags
import small_tiles
from hub_case import ours
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.errors import ConfigError

pytestmark = pytest.mark.full


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PATHENCODER_CACHE", str(tmp_path / "features"))


def test_a_head_and_its_encoder_come_from_the_hub(server, tmp_path):
    commit = server.add("owner/small", ours(tmp_path))
    tiles = small_tiles.folder(tmp_path / "tiles")
    head = pathencoder.fit(
        "linear", "owner/small", tiles, groups=small_tiles.GROUPS, progress=False
    )
    head.save(tmp_path / "head")
    files = {p.name: p.read_bytes() for p in (tmp_path / "head").iterdir()}
    server.add("owner/head", files)
    loaded = pathencoder.load_head("owner/head")
    assert (loaded.record.repo, loaded.record.revision) == ("owner/small", commit)
    np.testing.assert_array_equal(
        loaded.predict(tiles, progress=False).probabilities,
        head.predict(tiles, progress=False).probabilities,
    )
    assert loaded.report == head.report
    server.add("owner/head", {k: v for k, v in files.items() if k != "report.json"})
    assert pathencoder.load_head("owner/head").report is None


def test_a_repository_without_a_head(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    with pytest.raises(ConfigError, match="no head but something else"):
        pathencoder.load_head("owner/small")
    server.add("owner/empty", {"README.md": b"nothing"})
    with pytest.raises(ConfigError, match="owner/empty holds no head"):
        pathencoder.load_head("owner/empty")


def test_a_head_of_slides_from_the_hub_needs_no_encoder(server, tmp_path):
    unit = np.eye(6)[0]
    head = small_bags.head_that_attends(unit, 1.0, 0.0)
    head.save(tmp_path / "head")
    server.add("owner/slides", {p.name: p.read_bytes() for p in (tmp_path / "head").iterdir()})
    loaded = pathencoder.load_head("owner/slides")
    file = small_bags.write(tmp_path, "S", small_bags.rows("tumour", 0))
    np.testing.assert_array_equal(loaded.attention(file).weights, head.attention(file).weights)
    assert loaded.predict(file).labels == ["tumour"]
