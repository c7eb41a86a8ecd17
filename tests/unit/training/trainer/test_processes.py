"""The command on two processes: a recipe's small sibling starts, stops, resumes and exports."""

import datetime
import json
import shutil

import pytest
import torch
from groups import group
from paths import ROOT
from small_recipes import sibling, write_pictures

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from training.pretrain import main
from training.provenance import saved_steps

pytestmark = pytest.mark.full
RECIPES = ROOT / "training/recipes"
VIT, CNN = RECIPES / "dino_large_cluster.yaml", RECIPES / "byol_tiny_cpu.yaml"


@pytest.fixture(scope="module")
def on_two():
    """Run the command on two processes; returns their exit statuses."""
    with group(2) as two:
        yield two.pretrain


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def losses(run):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def weights(run):
    return load_encoder(str(run / "export")).state_dict()


@pytest.mark.parametrize(("recipe", "parallel"), [(VIT, "fsdp"), (CNN, "ddp")])
def test_a_recipe_stops_resumes_and_exports_on_two_processes(
    on_two, pictures, tmp_path, recipe, parallel
):
    settings = [*sibling(recipe, pictures, tmp_path / "run"), f"run.parallel={parallel}"]
    assert on_two(recipe, [*settings, "run.minutes=1e-9"]) == [0, 0]
    assert saved_steps.latest(tmp_path / "run").name == "step-00000001"
    assert on_two(recipe, settings) == [0, 0]
    assert on_two(recipe, [*settings, f"run.out={tmp_path / 'whole'}"]) == [0, 0]
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert list(losses(tmp_path / "run")) == [1, 2, 3, 4]
    a, b = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_one_process_and_four_go_on_from_the_checkpoint_of_two(on_two, pictures, tmp_path):
    settings = [*sibling(VIT, pictures, tmp_path / "one"), "optim.precision=fp32"]
    assert on_two(VIT, [*settings, "run.minutes=1e-9"]) == [0, 0]
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert main([str(VIT), *settings]) == 0
    assert on_two(VIT, [*settings, f"run.out={tmp_path / 'two'}"]) == [0, 0]
    with group(4) as four:  # on two nodes, each of which has all weights
        nodes = [*settings, f"run.out={tmp_path / 'four'}", "run.shard=node"]
        assert four.pretrain(VIT, nodes, node=2) == [0] * 4
    for processes in ("one", "four"):
        assert list(losses(tmp_path / processes)) == [1, 2, 3, 4]
        assert losses(tmp_path / processes) == pytest.approx(losses(tmp_path / "two"), rel=1e-3)
    assert not list(tmp_path.glob("*/checkpoints/.step*"))


def test_how_long_a_process_waits_for_the_others_is_a_setting(
    pictures, tmp_path, monkeypatch, caplog
):
    def refuse(backend, *, timeout):
        raise ConfigError(f"{backend} waits {timeout}")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.distributed.init_process_group", refuse)
    settings = sibling(CNN, pictures, tmp_path / "run")
    assert main([str(CNN), *settings, "run.timeout_minutes=90"]) == 1
    assert f"waits {datetime.timedelta(minutes=90)}" in caplog.text
    assert main([str(CNN), *settings]) == 1
    assert "waits None" in caplog.text
