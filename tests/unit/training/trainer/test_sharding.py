"""Weights sharded over processes: built without memory, over all processes or within nodes."""

import numpy as np
import pytest
import torch
from groups import group
from safetensors.torch import save_file
from small_runs import values, write_tiles

from pathencoder.errors import ConfigError
from training import config, distributed
from training.backbones import make
from training.trainer import checks, parallel, prepare, sharding
from training.trainer.signals import StopRequest

pytestmark = pytest.mark.full
VIT = {
    "architecture": "vit_tiny_patch16_224",
    "args": {
        "dynamic_img_size": True,
        "drop_path_rate": 0.1,
        **{"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 30, "num_heads": 2},
    },
    "input_size": 32,
    "embedding": "cls",
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights that no seed gives."""
    file = tmp_path_factory.mktemp("start") / "start.safetensors"
    torch.manual_seed(99)
    network = make.make_backbone(config.BackboneSettings(**VIT))
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    return file


@pytest.fixture(scope="module")
def two():
    with group(2) as made:
        yield made


@pytest.fixture(scope="module")
def four():
    with group(4) as made:
        yield made


def cfg_of(tiles, out, method, start, **run):
    asked = values(tiles, out, method, parallel="fsdp", **run)
    asked["backbone"] = {**VIT, "start": str(start)}
    asked["data"]["batch"] = 8
    return config.check(asked)


def opened(cfg):
    """A run's weights and buffers as it starts, and how this process came to its part of them."""
    seen = {}
    shard, compile_blocks = sharding.shard, parallel.compile_blocks
    parallel.compile_blocks = parallel._share_graphs  # all of it but the compiler

    def look(method, device, **options):
        seen["built on"] = {p.device.type for p in method.parameters()}
        shard(method, device, **options)

    sharding.shard = look
    try:
        with distributed.processes(), prepare.opened(cfg, StopRequest()) as run:
            weight = next(run.method.backbone.blocks[0].attn.parameters())
            if hasattr(weight, "device_mesh"):
                seen["mesh"] = tuple(weight.device_mesh.shape)
                seen["rows"] = len(weight.to_local())
            seen["buffers"] = {k: b.numpy().copy() for k, b in run.method.named_buffers()}
            state = parallel.full_state(run.method)
            seen["state"] = {k: v.numpy().copy() for k, v in state.items()}
    finally:
        sharding.shard, parallel.compile_blocks = shard, compile_blocks
    return seen


@pytest.mark.parametrize("method", ["dino", "distill"])
def test_sharded_weights_start_as_those_of_one_process(tiles, start, tmp_path, two, method):
    alone = opened(cfg_of(tiles, tmp_path / "one", method, start, compile=True))
    parts = two.call(opened, cfg_of(tiles, tmp_path / "two", method, start, compile=True))
    assert [p["built on"] for p in parts] == [{"cpu"}, {"meta"}]
    assert [p["mesh"] for p in parts] == [(2,), (2,)]
    assert [p["rows"] for p in parts] == [45, 45]
    assert parts[0]["state"].keys() == alone["state"].keys()
    assert all(np.array_equal(parts[0]["state"][k], v) for k, v in alone["state"].items())
    assert any("drop_path" in k for k in alone["buffers"])  # in no state dict
    for part in parts:
        assert all(np.array_equal(part["buffers"][k], v) for k, v in alone["buffers"].items())


def test_with_shard_node_each_node_has_all_weights(tiles, start, tmp_path, four):
    cfg = cfg_of(tiles, tmp_path / "four", "simclr", start, shard="node")
    alone = opened(
        cfg.model_copy(update={"run": cfg.run.model_copy(update={"out": tmp_path / "1"})})
    )
    parts = four.call(opened, cfg, node=2)
    assert [p["mesh"] for p in parts] == [(2, 2)] * 4
    assert [p["rows"] for p in parts] == [45] * 4
    assert all(np.array_equal(parts[0]["state"][k], v) for k, v in alone["state"].items())


def test_a_start_that_does_not_fit_stops_all_processes(tiles, tmp_path, two):
    save_file({"weight": torch.zeros(1)}, tmp_path / "start.safetensors")
    cfg = cfg_of(tiles, tmp_path / "run", "simclr", tmp_path / "start.safetensors")
    first, other = two.call(error_of, cfg)
    assert "does not fit backbone.architecture" in first
    assert other == f"process 0 stopped: {first}"


def error_of(cfg):
    try:
        opened(cfg)
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "LOCAL_WORLD_SIZE and LOCAL_RANK are not set"),
        ({"LOCAL_WORLD_SIZE": "3", "LOCAL_RANK": "0"}, "process 0 of 4 is number 0 of 3"),
        ({"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "process 0 of 4 is number 1 of 2"),
    ],
)
def test_nodes_of_unequal_size_are_refused(monkeypatch, variables, words):
    monkeypatch.setattr(distributed, "world", lambda: 4)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sharding.nodes("all") == 1
    with pytest.raises(ConfigError, match=words):
        sharding.nodes("node")


def test_a_method_with_its_own_network_is_not_sharded(tiles, tmp_path):
    asked = values(tiles, tmp_path / "run", parallel="fsdp")
    asked["method"], asked["data"]["canvas"] = {"name": "patch_contrast", "crop": 64}, 64
    with pytest.raises(ConfigError, match="network of patch_contrast is small and is not sharded"):
        checks.refuse(config.check(asked))
