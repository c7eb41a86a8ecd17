"""A head from the loopback Hub, with its encoder."""

import hub_server
import labelled_tissue
import numpy as np
import pytest
import small_bags
import small_tiles
from hub_case import ours
from sklearn.linear_model import LogisticRegression  # noqa: F401  the extra that fitting needs

import pathencoder
from pathencoder.errors import ConfigError, UnknownEncoder
from pathencoder.heads import store
from pathencoder.heads.adapt import save

pytestmark = [
    pytest.mark.full,
    # of the client's own code
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]
TOKEN = {"token": hub_server.GOOD_TOKEN}


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


def test_a_name_that_is_neither_a_folder_nor_a_repository(server):
    with pytest.raises(UnknownEncoder, match=r"no such folder: runs/hed\. As a repository"):
        pathencoder.load_head("runs/hed")


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


def pushed(server, repo):
    """The files of a repository by name, without the Hub's own."""
    files = server.repos[repo].at("main")
    return {name: content for name, content in files.items() if name != ".gitattributes"}


@pytest.mark.parametrize("how", ["lora", "last"])
def test_an_adapted_encoder_is_pushed_with_its_head_and_its_parent(server, tmp_path, how):
    server.add("owner/small", ours(tmp_path))
    tiles = small_tiles.folder(tmp_path / "tiles")
    given = {"groups": small_tiles.GROUPS, "progress": False}
    adapted = pathencoder.adapt("owner/small", tiles, how, epochs=1, batch=8, **given)
    address = adapted.push_to_hub("me/mine", **TOKEN)
    assert address == f"{server.url}/me/mine/commit/{server.repos['me/mine'].refs['main']}"
    files = pushed(server, "me/mine")
    assert set(files) <= set(save.FILES)
    assert ("adapter/adapter_config.json" in files) == (how == "lora")
    assert not any(str(tmp_path).encode() in content for content in files.values())
    front = files["README.md"].decode().split("---")[1].splitlines()
    assert "base_model: owner/small" in front
    assert "base_model_relation: finetune" in front

    encoder = pathencoder.load_encoder("me/mine", device="cpu")
    images = sorted(tiles.rglob("*.png"))[:4]
    np.testing.assert_array_equal(
        encoder.encode(images, progress=False), adapted.encoder.encode(images, progress=False)
    )
    head = pathencoder.load_head("me/mine/head")
    np.testing.assert_array_equal(
        head.predict(images, progress=False).probabilities,
        adapted.head.predict(images, progress=False).probabilities,
    )
    again = pathencoder.fit("linear", encoder, tiles, **given)
    assert any("has seen their labels" in note for note in again.report.notes)
    with pytest.raises(ConfigError, match=r"no head but something else.*give me/mine/head"):
        pathencoder.load_head("me/mine")


def test_files_of_an_earlier_adaptation_do_not_stay(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    tiles = small_tiles.folder(tmp_path / "tiles")
    given = {"groups": small_tiles.GROUPS, "progress": False, "epochs": 1, "batch": 8}
    pathencoder.adapt("owner/small", tiles, "lora", **given).push_to_hub("me/mine", **TOKEN)
    pathencoder.adapt("owner/small", tiles, "last", **given).push_to_hub("me/mine", **TOKEN)
    assert not any(name.startswith("adapter/") for name in pushed(server, "me/mine"))
    with pytest.raises(ConfigError, match="'owner/name'"):
        pathencoder.adapt("owner/small", tiles, "last", **given).push_to_hub("mine", **TOKEN)


def test_heads_are_pushed_and_name_their_encoder(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    tiles = small_tiles.folder(tmp_path / "tiles")
    encoder = pathencoder.load_encoder(tmp_path / "written0", device="cpu")
    given = {"groups": small_tiles.GROUPS, "progress": False}
    dense = {"mpp": labelled_tissue.MPP, "steps": 1, "batch": 2, "side": 32, "frozen": True}
    pictures = labelled_tissue.folder(tmp_path / "pictures")
    made = {
        "me/linear": pathencoder.fit("linear", "owner/small", tiles, **given),
        "me/folder": pathencoder.fit("linear", encoder, tiles, **given),
        "me/slides": small_bags.head_that_attends(np.eye(6)[0], 1.0, 0.0),
        "me/dense": pathencoder.fit("nuclei", encoder, pictures, progress=False, **dense),
    }
    for name, head in made.items():
        head.push_to_hub(name, **TOKEN)
        files = pushed(server, name)
        assert set(files) == set(store.FILES)
        assert not any(str(tmp_path).encode() in content for content in files.values())
    assert "base_model: owner/small" in pushed(server, "me/linear")["README.md"].decode()
    assert "base_model: small" in pushed(server, "me/dense")["README.md"].decode()
    found = pathencoder.load_head("me/linear").predict(tiles, progress=False)
    np.testing.assert_array_equal(
        found.probabilities, made["me/linear"].predict(tiles, progress=False).probabilities
    )
    file = small_bags.write(tmp_path, "S", small_bags.rows("tumour", 0))
    assert pathencoder.load_head("me/slides").predict(file).labels == ["tumour"]
    loaded = pathencoder.load_head("me/dense", encoder=encoder)
    assert len(loaded.predict(pictures / "images", mpp=labelled_tissue.MPP)) > 0
