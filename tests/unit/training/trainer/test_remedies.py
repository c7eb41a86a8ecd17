"""A run that diverges goes back to before its bad batches, and on with what its message asks."""

import copy
import json

import pytest
from small_runs import values, write_tiles

from pathencoder.errors import ConfigError, PathEncoderError
from training import config
from training.methods.simclr import SimCLR
from training.pretrain import train
from training.provenance import saved_steps
from training.trainer import changes

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def of_run(asked, *, half=False):
    return config.settings_of_run(config.check(asked), half=half)


def with_optim(asked, **optim):
    return {**asked, "optim": {**asked["optim"], **optim}}


def test_after_bad_batches_the_checkpoint_is_of_before_and_a_lower_rate_goes_on(
    tiles, tmp_path, monkeypatch
):
    asked = with_optim(values(tiles, tmp_path / "run", checkpoint_every=1, bad_batches=2), lr=0.01)
    good = SimCLR.loss

    def bad_from_step_three(self, views, step):
        loss, logs = good(self, views, step)
        return (loss * float("nan") if step >= 3 else loss), logs

    with monkeypatch.context() as patch:
        patch.setattr(SimCLR, "loss", bad_from_step_three)
        with pytest.raises(PathEncoderError, match=r"step-00000003, is of before.*lower optim\.lr"):
            train(config.check(asked))
    assert saved_steps.latest(tmp_path / "run").name == "step-00000003"
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.01, is 0\.02"):
        train(config.check(with_optim(asked, lr=0.02)))
    run = train(config.check(with_optim(asked, lr=0.001)))
    rates = {
        line["step"]: line["lr"]
        for line in map(json.loads, (run / "log.jsonl").read_text().splitlines())
        if "lr" in line
    }
    assert rates[3] > 0.005
    assert max(rates[step] for step in (4, 5, 6)) < 0.001
    record = json.loads((run / "data.json").read_text())
    assert record["changed"] == [[3, "optim.lr was 0.01, is 0.001"]]
    # and it stays in the record
    assert train(config.check(with_optim(asked, lr=0.001))) == run
    assert json.loads((run / "data.json").read_text())["changed"] == record["changed"]


@pytest.mark.parametrize(
    ("old", "new", "half", "refused"),
    [
        ({}, {"precision": "fp32"}, (False, False), False),
        ({"precision": "bf16"}, {}, (True, True), False),  # auto chooses the same
        ({"precision": "bf16"}, {"precision": "fp32"}, (True, False), False),  # a remedy
        ({}, {"precision": "bf16"}, (False, True), True),
        ({"clip": 3.0}, {"clip": 1.0}, (False, False), False),
        ({"clip": 1.0}, {"clip": 3.0}, (False, False), True),
        ({"head_lr": 0.1}, {"head_lr": 0.01}, (False, False), False),
        ({"warmup": 2}, {"warmup": 3}, (False, False), True),
    ],
)
def test_which_changes_are_refused(tmp_path, old, new, half, refused):
    asked = values(tmp_path, tmp_path / "run")
    before = of_run(with_optim(asked, **old), half=half[0])
    now = of_run(with_optim(asked, **new), half=half[1])
    assert bool(changes.changes(before, now, 3)) == refused


def test_an_older_checkpoint_does_not_say_what_auto_chose(tmp_path):
    asked = values(tmp_path, tmp_path / "run")
    before = of_run(asked)
    before["optim"]["precision"] = "auto"
    assert changes.changes(before, of_run(asked, half=True), 3) == []


def test_the_same_files_by_other_names_are_no_change(tmp_path, monkeypatch):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "tiles")
    (tmp_path / "teacher").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = values("tiles", tmp_path / "run", "distill")
    asked["method"]["teachers"] = ["./teacher"]
    other = copy.deepcopy(asked)
    other["data"]["root"] = str(tmp_path / "link")
    other["method"]["teachers"] = [str(tmp_path / "teacher")]
    assert changes.changes(of_run(asked), of_run(other), 3) == []
