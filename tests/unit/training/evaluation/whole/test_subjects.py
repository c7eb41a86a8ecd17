"""Baseline rows: ImageNet weights of the evaluated encoder's own network where they are at hand."""

import hashlib

import pytest
from safetensors.torch import save_file

from training.backbones import known_starts
from training.backbones.known_starts import KnownStart
from training.config import BackboneSettings
from training.evaluation.encoders import plain
from training.evaluation.whole.run import _networks
from training.evaluation.whole.subjects import open_rows, readings_of

pytestmark = pytest.mark.full
READOUT = "stages:blocks.0,blocks.1/mean,max"
NETWORKS = ("test_efficientnet", "test_efficientnet_gn")


def settings(architecture, **changes):
    return BackboneSettings(architecture=architecture, **changes)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """ImageNet weights of two networks, which are known by their sha256."""
    made = []
    for architecture in NETWORKS:
        made.append(tmp_path / f"{architecture}.safetensors")
        state = plain(settings(architecture)).network.state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, made[-1])
        known = KnownStart("its weights", "MIT", "a page", "a command", architecture)
        sha256 = hashlib.sha256(made[-1].read_bytes()).hexdigest()
        monkeypatch.setitem(known_starts.KNOWN, sha256, known)
    return made


def saved(folder, architecture, embedding=READOUT):
    plain(settings(architecture, embedding=embedding)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("own", [0, 1])
def test_baselines_are_of_the_encoders_network(files, tmp_path, own):
    rows, absent = open_rows([f"mine={saved(tmp_path / 'mine', NETWORKS[own])}"], files)
    assert absent == []
    assert [(r.name, r.role) for r in rows[1:]] == [
        ("imagenet, final", "imagenet"),
        ("imagenet, read alike", "imagenet read alike"),
        ("random", "random"),
    ]
    assert {r.described().architecture for r in rows} == {NETWORKS[own]}
    final, alike = rows[1:3]
    assert final.weights_sha256 == alike.weights_sha256
    assert final.weights_sha256[0] == hashlib.sha256(files[own].read_bytes()).hexdigest()
    assert (final.described().readout, alike.described().readout) == ("pool", READOUT)


def test_two_encoders_are_each_read_beside_their_own_network(files, tmp_path):
    names = [f"{x}={saved(tmp_path / x, x)}" for x in NETWORKS]
    rows, _ = open_rows(names, files)
    alike = {r.name: r.described().architecture for r in rows if r.role == "imagenet read alike"}
    assert alike == {f"imagenet, read as {x}": x for x in NETWORKS}
    # final and the first one's are one pass; the other network is another, and has maps of its own
    passes = [tuple(s.name for s in r.subjects) for r in readings_of(rows)]
    assert ("imagenet, final", f"imagenet, read as {NETWORKS[0]}") in passes
    assert (f"imagenet, read as {NETWORKS[1]}",) in passes
    assert [r.name for r in _networks(rows) if r.role.startswith("imagenet")] == [
        "imagenet, final",
        f"imagenet, read as {NETWORKS[1]}",
    ]


def test_without_weights_of_its_network_the_first_ones_stand_beside_an_encoder(files, tmp_path):
    mine = saved(tmp_path / "mine", "test_resnet", "pool")
    rows, absent = open_rows([f"mine={mine}"], files)
    assert {r.described().architecture for r in rows[1:]} == {NETWORKS[0]}
    assert absent == []
    _, absent = open_rows([f"mine={mine}"], [tmp_path / "none", files[1]])
    assert "none is not there" in absent[0].reason
