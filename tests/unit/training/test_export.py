"""The export command: a run's encoder from any of its checkpoints, with the record of then."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from small_runs import settings, values, write_tiles

from pathencoder import load_encoder
from pathencoder.errors import ConfigError
from training import config, export
from training.pretrain import train
from training.publishing.average import reexport

pytestmark = pytest.mark.full


def command(*arguments):
    return CliRunner().invoke(export.main, [str(a) for a in arguments])


@pytest.fixture(scope="module", params=["simclr", "dino"])
def run(request, tmp_path_factory):
    """A run of six steps that keeps every second checkpoint, whose tiles are gone."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiles").mkdir()
    asked = values(write_tiles(folder / "tiles"), folder / "run", request.param, keep_every=2)
    done = train(config.check(asked))
    shutil.rmtree(folder / "tiles")
    return done


def weights(folder):
    return load_encoder(str(folder)).state_dict()


def test_the_newest_checkpoint_gives_the_runs_own_export(run, tmp_path):
    done = command(run, "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    own, again = weights(run / "export"), weights(tmp_path / "again")
    assert all(torch.equal(own[k], again[k]) for k in own)
    for file in ("provenance.json", "config.json"):
        assert (tmp_path / "again" / file).read_text() == (run / "export" / file).read_text()


def test_an_earlier_step_is_another_encoder_and_says_so(run):
    done = command(f"{run}@4")
    assert done.output.strip() == str(run / "export-4")
    own, earlier = weights(run / "export"), weights(run / "export-4")
    assert not all(torch.equal(own[k], earlier[k]) for k in own)
    assert "stopped at 4 of 6 steps" in load_encoder(str(run / "export-4")).spec.training


def test_another_readout(run, tmp_path):
    rule = "stages:layer2,layer4/mean,max"
    assert command(run, "--out", tmp_path / "other", "--embedding", rule).exit_code == 0
    assert load_encoder(str(tmp_path / "other")).spec.embedding == rule


def test_a_checkpoint_from_before_a_setting_was_added(run, tmp_path):
    old = tmp_path / "run"
    shutil.copytree(run, old)
    file = old / "checkpoints/step-00000006/run.json"
    about = json.loads(file.read_text())
    del about["settings"]["data"]["share"]
    file.write_text(json.dumps(about))
    done = command(old, "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output


def test_what_is_not_there_is_named(run, tmp_path):
    assert "no checkpoint of step 5; there are: 6, 4, 2" in command(f"{run}@5").output
    assert "'last' is not a step" in command(f"{run}@last").output
    done = command(tmp_path)
    assert (done.exit_code, "no config.yaml" in done.output) == (1, True)


@pytest.mark.parametrize("left", ["", '{"step": 6', "[]", '{"step": 6}', None])
def test_a_damaged_record_of_the_newest_checkpoint_is_passed_over(run, tmp_path, caplog, left):
    old = shutil.copytree(run, tmp_path / "run")
    file = old / "checkpoints/step-00000006/run.json"
    file.unlink()
    if left is not None:
        file.write_text(left)
    done = command(old, "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert "step-00000006 is damaged (its run.json cannot be read" in caplog.text
    again = load_encoder(str(tmp_path / "again")).spec.training
    assert "stopped at 4 of 6 steps" in again
    done = command(f"{old}@6", "--out", tmp_path / "again")
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "step-00000006 is damaged (its run.json cannot be read" in done.output


def test_a_run_whose_checkpoints_are_all_damaged_says_what_to_do(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "run")
    for file in old.glob("checkpoints/*/.metadata"):
        file.write_bytes(b"\x80\x04")
    done = command(old, "--out", tmp_path / "again")
    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "step-00000006 is damaged (its .metadata cannot be read" in done.output
    for file in old.glob("checkpoints/*/run.json"):
        file.write_text("{")
    done = command(old, "--out", tmp_path / "again")
    assert (done.exit_code, "Copy one back from a backup" in done.output) == (1, True)


def test_an_average_with_the_start_is_made_again(tmp_path):
    (tmp_path / "tiles").mkdir()
    cfg = settings(write_tiles(tmp_path / "tiles"), tmp_path / "run")
    cfg = cfg.model_copy(update={"export": cfg.export.model_copy(update={"start_share": 0.5})})
    run = train(cfg)
    assert command(run, "--out", tmp_path / "again").exit_code == 0
    own, again = weights(run / "export"), weights(tmp_path / "again")
    assert all(torch.equal(own[k], again[k]) for k in own)


def test_an_average_is_of_equal_networks_and_tiles(tmp_path, caplog):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "others").mkdir()
    tiles = write_tiles(tmp_path / "tiles", slides=3)
    others = write_tiles(tmp_path / "others", slides=4)

    def trained(name, root, **changes):
        said = values(root, tmp_path / name)
        said["optim"]["steps"] = 1
        said["optim"]["warmup"] = 0
        for section, change in changes.items():
            said[section] = said[section] | change if isinstance(change, dict) else change
        return train(config.check({**said}))

    first = trained("first", tiles)
    again = reexport([first], tmp_path / "a", start_share=0.5)
    same = reexport([first], tmp_path / "b", start_share=0.5)
    assert all(torch.equal(v, weights(same)[k]) for k, v in weights(again).items())
    vit = trained("vit", tiles, backbone={"architecture": "test_efficientnet"})
    with pytest.raises(ConfigError, match="only equal networks can be averaged"):
        reexport([first, vit], tmp_path / "c")
    with pytest.raises(ConfigError, match="16 tiles that are not the 12"):
        reexport([first, trained("wide", others)], tmp_path / "c")
    assert not (tmp_path / "c").exists()
    said = values(tiles, tmp_path / "second") | {"seed": 1}
    said["optim"] |= {"steps": 1, "warmup": 0}
    reexport([first, train(config.check(said))], tmp_path / "c")
    assert "without a common start means nothing" in caplog.text


def test_a_method_with_its_own_network_has_the_same_record(tmp_path):
    (tmp_path / "tiles").mkdir()
    asked = values(write_tiles(tmp_path / "tiles", slides=2, each=2, side=120), tmp_path / "run")
    asked["method"] = {"name": "patch_contrast", "crop": 100, "stop": False}
    asked["data"] |= {"canvas": 112, "batch": 2}
    asked["optim"]["steps"] = 1
    asked["export"]["licence"] = "unknown"
    run = train(config.check(asked))
    about = json.loads((run / "export/config.json").read_text())
    assert (about["licence"], about["commercial"]) == ("unknown", False)
    assert "patch_contrast from random weights, 1 steps of 2 tiles; 4 tiles" in about["training"]
    record = json.loads((run / "export/provenance.json").read_text())
    assert record == json.loads((run / "data.json").read_text())
    assert command(run, "--out", tmp_path / "again").exit_code == 0
    assert json.loads((tmp_path / "again/provenance.json").read_text()) == record
