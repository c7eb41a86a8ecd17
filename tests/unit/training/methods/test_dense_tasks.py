"""Dense tasks together: a stopped run resumes, and wrong settings say what to do."""

import json

import pytest
import torch
from small_runs import values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from training import config
from training.pretrain import train
from training.trainer import checkpoint

pytestmark = pytest.mark.full
TASKS = {
    "stain_maps": {"stages": ["layer1"]},
    "dense_contrast": {"stages": ["layer1", "layer2"], "weight": 0.5},
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def asked(tiles, out, **run):
    made = values(tiles, out, **run)
    made["method"] |= TASKS
    return config.check(made)


def test_a_stopped_run_with_dense_tasks_resumes_bitwise(tiles, tmp_path):
    whole = train(asked(tiles, tmp_path / "whole"))
    for _ in range(6):  # each call stops after one step, with a checkpoint
        train(asked(tiles, tmp_path / "pieces", minutes=1e-9))
    assert checkpoint.latest(tmp_path / "pieces").name == "step-00000006"
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
