"""Dense tasks together: a stopped run resumes, and wrong settings say what to do."""

import json

import pytest
import torch
from small_methods import CROPS, DENSE, SMALL, rng, small_method
from small_runs import values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from training import config
from training.data.loader import TileBatch
from training.methods import simclr
from training.pretrain import train
from training.provenance import saved_steps

pytestmark = pytest.mark.full
TASKS = {
    "stain_maps": {"stages": ["layer1"]},
    "nuclei_maps": {"stages": ["layer2"]},
    "crop_scale": {"stages": ["layer2"]},
    "dense_contrast": {"stages": ["layer1", "layer2"], "weight": 0.5},
    "context": {"stages": ["layer2"]},
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def asked(tiles, out, method="simclr", **run):
    made = values(tiles, out, method, **run)
    made["method"] |= TASKS
    return config.check(made)


@pytest.mark.parametrize("method", ["simclr", "dino"])
def test_a_stopped_run_with_dense_tasks_resumes_bitwise(tiles, tmp_path, method):
    whole = train(asked(tiles, tmp_path / "whole", method))
    for _ in range(6):  # each call stops after one step, with a checkpoint
        train(asked(tiles, tmp_path / "pieces", method, minutes=1e-9))
    assert saved_steps.latest(tmp_path / "pieces").name == "step-00000006"
    a, b = (load_encoder(str(f / "export")).state_dict() for f in (whole, tmp_path / "pieces"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    kept = [figures(f) for f in (whole, tmp_path / "pieces")]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 6


def figures(run):
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [[line[k] for k in ("loss", *TASKS)] for line in lines if line["kind"] == "train"]


def test_wrong_settings_of_tasks_say_what_to_do(tiles, tmp_path):
    for wrong, words in (
        ({"stages": []}, "dense_contrast.stages: .*at least 1"),
        ({"stages": ["layer1", "layer1"]}, "name each stage once"),
        ({"stages": ["layer1"], "wieght": 1}, "dense_contrast.wieght: no such setting; nearest: w"),
        ({"stages": ["layer1"], "weight": 0}, "dense_contrast.weight: .*greater than 0"),
    ):
        made = values(tiles, tmp_path / "run")
        made["method"]["dense_contrast"] = wrong
        with pytest.raises(ConfigError, match=words):
            config.check(made)


def test_maps_of_a_network_that_drops_patches_are_refused():
    settings = simclr.Settings(crop=CROPS, stain_maps={"stages": ["blocks.0"]})
    small_method(settings)
    with pytest.raises(ConfigError, match=r"stain_maps.stages takes whole maps.*patch_drop_rate"):
        small_method(settings, patch_drop_rate=0.3)


@pytest.mark.parametrize("name", ["byol, dense tasks", "dino, dense tasks"])
def test_the_tasks_beside_byol_and_dino_reach_the_backbone_and_change_no_crop(name):
    method = small_method(SMALL[name], "test_efficientnet")
    plain = small_method(SMALL[name.partition(",")[0]], "test_efficientnet")
    noise = torch.randint(0, 256, (8, 3, 48, 48), dtype=torch.uint8, generator=rng(0))
    batch = TileBatch(noise, torch.zeros(8).long(), torch.arange(8))
    views, without = method.views(batch), plain.views(batch)
    assert all(torch.equal(a, b) for a, b in zip(views, without, strict=False))
    loss, logs = method.loss(views, 1)
    own = plain.loss(without, 1)[0]
    assert logs.keys() >= DENSE.keys()
    tasks = loss - own  # equal networks, so what is left are the tasks
    tasks.backward()
    assert float(tasks.detach()) > 2
    reached = [p.grad for n, p in method.backbone.named_parameters() if n.startswith("blocks.1.")]
    assert all(g is not None and g.abs().sum() > 0 for g in reached)


def test_dino_refuses_tasks_on_maps_of_hidden_patches(tiles, tmp_path):
    made = values(tiles, tmp_path / "run", "dino")
    made["method"] |= {"patches": {}, "stain_maps": {"stages": ["blocks.0"]}}
    with pytest.raises(
        ConfigError, match=r"patches hides parts .* stain_maps would learn from: set"
    ):
        config.check(made)
