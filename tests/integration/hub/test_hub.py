"""Loading from a Hub, with the real huggingface_hub client against a real HTTP server on loopback.

What loads, and offline.
"""

import hashlib
import json

import huggingface_hub
import pytest
import torch
from hub_case import (
    ours,
    pickled,
    row,
    state,
    timms,
)
from huggingface_hub import constants
from safetensors.torch import load_file, save

import pathencoder
from pathencoder.errors import (
    ConfigError,
    IncompatibleWeights,
    OfflineError,
    UnknownEncoder,
)
from pathencoder.pretrained import catalogue, locate
from pathencoder.verify import verify

# What loads


@pytest.mark.parametrize("name", ["owner/small", "hf-hub:owner/small", "hf_hub:owner/small"])
def test_a_repository_in_our_format(server, tmp_path, name):
    commit = server.add("owner/small", ours(tmp_path))
    encoder = pathencoder.load_encoder(name)
    assert (encoder.spec.repo, encoder.spec.revision) == ("owner/small", commit)
    assert verify(encoder).ok


def test_a_repository_in_timms_format(server):
    server.add("owner/plain", timms())
    spec = pathencoder.load_encoder("owner/plain").spec
    assert (spec.embedding, spec.mean, spec.name) == ("cls", (0.1, 0.2, 0.3), "owner/plain")


def test_the_description_of_a_repository_states_its_commit(server):
    commit = server.add("owner/plain", timms())
    spec = locate.describe("owner/plain")
    assert (spec.repo, spec.revision, spec.sha256) == ("owner/plain", commit, None)


def test_a_cache_below_a_folder_named_snapshots(server, tmp_path):
    commit = server.add("owner/old", timms({"pytorch_model.bin": pickled(state())}))
    cache = tmp_path / "snapshots" / "2024" / "hub"
    assert pathencoder.load_encoder("owner/old", cache_dir=cache).spec.revision == commit
    (converted,) = (tmp_path / "snapshots").rglob("pytorch_model.bin.safetensors")
    assert converted.parent == cache / "models--owner--old" / "pathencoder" / commit
    asked = len(server.asked)
    pathencoder.load_encoder("owner/old", revision=commit, cache_dir=cache)
    assert len(server.asked) == asked


@pytest.mark.parametrize("offline", [False, True])
def test_a_folder_without_an_encoder_is_named_where_the_name_is_not_found(
    server, tmp_path, monkeypatch, offline
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "dino" / "export").mkdir(parents=True)
    options = {"local_files_only": True} if offline else {}
    for call in (pathencoder.load_encoder, locate.describe):
        with pytest.raises((OfflineError, UnknownEncoder), match=r"folder runs.dino is here, but"):
            call("runs/dino", **options)
    (tmp_path / "runs" / "dino" / "export" / "config.json").write_text("{}")
    with pytest.raises((OfflineError, UnknownEncoder), match="runs/dino/export in it may be"):
        pathencoder.load_encoder("runs/dino", **options)


def test_safetensors_before_pickle(server):
    server.add(
        "owner/both",
        timms({"model.safetensors": save(state()), "pytorch_model.bin": b"never read"}),
    )
    pathencoder.load_encoder("owner/both")
    assert not server.gets("pytorch_model.bin")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.pth", "model.pth"])
def test_a_pickle_is_converted_once_and_kept(server, tmp_path, name):
    commit = server.add("owner/old", timms({name: pickled(state())}))
    first = pathencoder.load_encoder("owner/old")
    kept = tmp_path / "cache/models--owner--old/pathencoder" / commit / f"{name}.safetensors"
    assert torch.equal(load_file(kept)["norm.weight"], first.network.norm.weight)
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]
    blob = next((tmp_path / "cache/models--owner--old/snapshots" / commit).glob(name)).resolve()
    blob.unlink()
    blob.write_bytes(b"gone bad since")
    second = pathencoder.load_encoder("owner/old")
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_clients_own_tools_still_read_the_cache(server):
    server.add("owner/old", timms({"pytorch_model.bin": pickled(state())}))
    pathencoder.load_encoder("owner/old")
    info = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE)
    assert [r.repo_id for r in info.repos] == ["owner/old"]
    assert not info.warnings


def test_revisions(server, tmp_path):
    old = server.add("owner/small", ours(tmp_path, seed=1), "v1")
    new = server.add("owner/small", ours(tmp_path, seed=2))
    expected = {old: state(1)["norm.weight"], new: state(2)["norm.weight"]}
    for arguments, commit in [
        ({"name": "owner/small"}, new),
        ({"name": "owner/small", "revision": "v1"}, old),
        ({"name": "owner/small@v1"}, old),
        ({"name": f"hf-hub:owner/small@{old}"}, old),
        ({"name": "owner/small@v1", "revision": "v1"}, old),
    ]:
        encoder = pathencoder.load_encoder(**arguments)
        assert encoder.spec.revision == commit
        assert torch.equal(encoder.network.norm.weight, expected[commit])
    with pytest.raises(ConfigError, match="two revisions"):
        pathencoder.load_encoder("owner/small@v1", revision="main")
    with pytest.raises(UnknownEncoder, match=r"no revision 'v9'.*commits/main"):
        pathencoder.load_encoder("owner/small", revision="v9")


def test_a_row_without_a_pinned_revision_keeps_the_commit_that_was_read(server, monkeypatch):
    row(monkeypatch)
    commit = server.add("owner/small", {"pytorch_model.bin": pickled(state())})
    assert pathencoder.load_encoder("small").spec.revision == commit


def test_a_rows_pinned_revision_is_what_is_read(server, monkeypatch):
    pinned = server.add("owner/small", {"pytorch_model.bin": pickled(state(1))})
    later = server.add("owner/small", {"pytorch_model.bin": pickled(state(2))})
    row(monkeypatch, revision=pinned)
    assert pathencoder.load_encoder("small").spec.revision == pinned
    assert pathencoder.load_encoder("small", revision="main").spec.revision == later


def test_a_rows_repository_is_known_by_its_address_too(server, monkeypatch):
    """The publisher's own config.json cannot hold everything (layer classes).

    The catalogue's row does.
    """
    row(monkeypatch, embedding="cls_mean", dim=96)
    server.add("owner/small", timms({"pytorch_model.bin": pickled(state())}))
    assert pathencoder.load_encoder("hf-hub:owner/small").spec.embedding == "cls_mean"


def test_a_row_may_leave_its_statistics_to_the_repository(server, monkeypatch):
    nan = (float("nan"),) * 3
    row(monkeypatch, mean=nan, std=nan, config_file="preprocessor_config.json")
    processor = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
        "size": {"shortest_edge": 36},
    }
    server.add(
        "owner/small",
        {
            "pytorch_model.bin": pickled(state()),
            "preprocessor_config.json": json.dumps(processor).encode(),
        },
    )
    spec = pathencoder.load_encoder("small").spec
    assert (spec.mean, spec.std, spec.interpolation, spec.resize, spec.resize_size) == (
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "shortest", 36,
    )  # fmt: skip
    server.add(
        "owner/small", {"pytorch_model.bin": pickled(state()), "preprocessor_config.json": b"{}"}
    )
    with pytest.raises(ConfigError, match="no mean and std"):
        pathencoder.load_encoder("small")


def test_a_rows_file_that_is_not_there(server, monkeypatch):
    row(monkeypatch, config_file="preprocessor_config.json")
    server.add("owner/small", {"pytorch_model.bin": pickled(state())})
    for pretrained in (True, False):
        with pytest.raises(ConfigError, match=r"has no preprocessor_config\.json"):
            pathencoder.load_encoder("small", pretrained=pretrained)


def test_random_weights_download_no_weights(server, tmp_path):
    server.add("owner/small", ours(tmp_path))
    pathencoder.load_encoder("owner/small", pretrained=False)
    assert not [path for _, path, _ in server.asked if path.endswith("model.safetensors")]


def test_training_checkpoints_are_named_as_such(server):
    server.add(
        "owner/raw",
        timms({"model.safetensors": save({f"module.{k}": v for k, v in state().items()})}),
    )
    with pytest.raises(IncompatibleWeights, match="training checkpoint"):
        pathencoder.load_encoder("owner/raw")


# Downloads that break


@pytest.mark.skipif(
    int(huggingface_hub.__version__.split(".")[0]) < 2,
    reason="clients before 2.0 do not resume here",
)
def test_an_interrupted_download_goes_on_where_it_stopped(server, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    server.add("owner/plain", timms())
    server.cut_after = 50_000
    encoder = pathencoder.load_encoder("owner/plain")
    assert torch.equal(encoder.network.norm.weight, state()["norm.weight"])
    ranges = [
        headers["range"]
        for _, path, headers in server.asked
        if path.startswith("/cdn/") and "range" in headers
    ]
    assert ranges == ["bytes=50000-"]


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble_is_told_apart_from_ones_own_mistake(server, status):
    server.add("owner/plain", timms())
    server.broken = status
    with pytest.raises(OfflineError, match=r"owner/plain"):
        pathencoder.load_encoder("owner/plain")


def test_a_server_that_is_away_is_no_hindrance_once_all_is_here(server, monkeypatch, tmp_path):
    server.add("owner/small", ours(tmp_path))
    pathencoder.load_encoder("owner/small")
    gone = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone + "/{repo_id}/resolve/{revision}/{filename}"
    )
    assert pathencoder.load_encoder("owner/small").spec.name == "small"
    with pytest.raises(OfflineError, match=r"does not answer.*pathencoder fetch owner/other"):
        pathencoder.load_encoder("owner/other")


def test_force_download(server, monkeypatch, tmp_path):
    files = ours(tmp_path)
    commit = server.add("owner/small", files)
    weights = hashlib.sha256(files["model.safetensors"]).hexdigest()
    for number, name in enumerate(["owner/small", f"owner/small@{commit}"], start=1):
        pathencoder.load_encoder(name)
        assert len(server.gets(weights)) == number
        pathencoder.load_encoder(name, force_download=True)
        assert len(server.gets(weights)) == number + 1
    for options in ({"local_files_only": True}, {}):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not options)
        with pytest.raises(OfflineError, match="cannot be downloaded again: the network is dis"):
            pathencoder.load_encoder("owner/small", force_download=True, **options)


def test_force_download_converts_a_pickle_again(server):
    server.add("owner/old", timms({"pytorch_model.bin": pickled(state())}))
    kept = pathencoder.load_encoder("owner/old").origin
    converted = next(locate.Path(constants.HF_HUB_CACHE).rglob("pytorch_model.bin.safetensors"))
    converted.write_bytes(b"damaged")
    assert kept is not None
    pathencoder.load_encoder("owner/old", force_download=True)
    assert load_file(converted).keys() == state().keys()


# Offline


@pytest.mark.parametrize("how", ["variable", "argument"])
def test_offline(server, monkeypatch, tmp_path, how):
    server.add("owner/small", ours(tmp_path))
    arguments = {"local_files_only": True} if how == "argument" else {}
    if how == "variable":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        OfflineError,
        match=(r"config\.json of owner/small is not on this machine.*disabled.*pathencoder fetch"),
    ):
        pathencoder.load_encoder("owner/small", **arguments)
    assert not server.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    locate.fetch("owner/small")
    asked = len(server.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "variable")
    assert verify(pathencoder.load_encoder("owner/small", **arguments)).ok
    assert len(server.asked) == asked


def test_offline_a_public_row_of_one_pickle(server, monkeypatch):
    commit = server.add("owner/small", {"pytorch_model.bin": pickled(state())})
    row(monkeypatch, revision=commit)
    locate.fetch("small")
    assert pathencoder.load_encoder("small", local_files_only=True).spec.revision == commit


def test_fetch_brings_card_licence_and_reference(server, tmp_path):
    commit = server.add("owner/small", ours(tmp_path))
    place = locate.fetch("owner/small").folder
    assert {
        "config.json",
        "model.safetensors",
        "reference.safetensors",
        "README.md",
        "LICENSE",
    } <= {p.name for p in place.iterdir()}
    assert place.name == commit


def test_fetch_of_a_bundled_encoder_sends_no_request(server):
    assert locate.fetch(catalogue.DEFAULT).folder == catalogue.BUNDLED / catalogue.DEFAULT
    assert not server.asked


# Saving what was loaded


def test_a_copy_of_a_repository_in_our_format_is_the_same_files(server, tmp_path):
    there = {**ours(tmp_path), "metrics.json": b'{"auroc": 0.9}'}
    server.add("owner/small", there)
    pathencoder.load_encoder("owner/small").save_pretrained(tmp_path / "copy")
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == there


def test_a_copy_of_a_catalogues_encoder_says_where_it_comes_from(server, tmp_path, monkeypatch):
    row(monkeypatch, licence="CC-BY-NC-ND-4.0", commercial=False)
    commit = server.add("owner/small", {"pytorch_model.bin": pickled(state())})
    encoder = pathencoder.load_encoder("small")
    encoder.save_pretrained(tmp_path / "copy")
    card = (tmp_path / "copy/README.md").read_text()
    assert f"The unchanged weights of small (owner/small, revision {commit})" in card
    assert "license: cc-by-nc-nd-4.0\nbase_model: owner/small\n" in card
    assert (
        "licensed: CC-BY-NC-ND-4.0. No commercial use." in (tmp_path / "copy/LICENSE").read_text()
    )
    again = pathencoder.load_encoder(tmp_path / "copy")
    assert (again.spec.name, again.spec.repo, again.spec.revision) == (
        "small",
        "owner/small",
        commit,
    )
    assert torch.equal(again.network.norm.weight, encoder.network.norm.weight)
