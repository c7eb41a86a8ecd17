"""Run control: signals, bad batches, a full disk, a folder in use, the state of another run."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from paths import ROOT
from small_runs import METHODS, settings, state_of, values, write_tiles

from pathencoder.errors import (
    ConfigError,
    IncompatibleWeights,
    PathEncoderError,
    StoreError,
)
from training import config
from training.pretrain import train
from training.provenance import saved_steps
from training.trainer import guard, lock, saving, signals

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def poisoned(monkeypatch, method, at):
    """Views of the steps `at` hold NaN."""
    from training.methods import dino, distill, simclr

    owner = {"simclr": simclr.SimCLR, "dino": dino.Dino, "distill": distill.Distill}[method]
    honest, steps = owner.loss, set(at)

    def loss(self, views, step):
        return honest(self, [v * float("nan") if step in steps else v for v in views], step)

    monkeypatch.setattr(owner, "loss", loss)


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_batch_changes_nothing_and_is_kept_in_a_file(
    tiles, tmp_path, monkeypatch, method, caplog
):
    before = state_of(train(settings(tiles, tmp_path / "before", method, minutes=1e-9)))  # one step
    poisoned(monkeypatch, method, [1])
    train(settings(tiles, tmp_path / "run", method, minutes=1e-9))
    after = state_of(train(settings(tiles, tmp_path / "run", method, minutes=1e-9)))
    assert all(torch.equal(before[k], after[k]) for k in before)
    # the step counts all the same
    assert saved_steps.latest(tmp_path / "run").name == "step-00000002"
    with np.load(tmp_path / "run/bad_batches/step-00000001-process-0.npz") as kept:
        assert kept["tiles"].shape == (6, 3, 48, 48)
        assert len(set(kept["keys"])) == len(kept["indices"]) == 6
    assert "The weights are unchanged" in caplog.text
    skipped = [
        line
        for line in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
        if line["kind"] == "skipped"
    ]
    assert [(line["step"], line["loss"]) for line in skipped] == [(2, None)]


def test_several_bad_batches_in_a_row_stop_the_run(tiles, tmp_path, monkeypatch):
    poisoned(monkeypatch, "simclr", [1, 3, 4, 5])
    with pytest.raises(
        PathEncoderError, match=r"2 batches in a row.*the input of backbone\.conv1\.0"
    ):
        train(settings(tiles, tmp_path / "run", bad_batches=2))
    assert {p.name[:13] for p in (tmp_path / "run/bad_batches").iterdir()} == {
        "step-00000001",
        "step-00000003",
        "step-00000004",
    }


def test_the_first_value_that_is_not_finite_is_named():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    x = torch.ones(3, 2)
    assert guard.first_not_finite(net, lambda: net(x)).startswith("the loss itself")
    assert guard.first_not_finite(net, lambda: net(x * float("inf"))) == "the input of 0"
    overflowing = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Threshold(-10, float("nan")))
    overflowing[0].weight.data.fill_(-1e3)
    assert guard.first_not_finite(overflowing, lambda: overflowing(x)) == "module 1"
    net[2].weight.grad = torch.full((1, 2), float("nan"))
    assert guard.first_not_finite(net, lambda: net(x)) == "the gradient of 2.weight"
    net[2].weight.data[0, 0] = float("inf")
    assert guard.first_not_finite(net, lambda: net(x)) == "weights 2.weight"


def test_a_full_disk_is_an_error_and_the_last_checkpoint_is_kept(tiles, tmp_path, monkeypatch):
    run = train(settings(tiles, tmp_path / "run", minutes=1e-9))
    good = saved_steps.latest(run)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "_refuse_small_disk", lambda partial, needed: None)
        patch.setattr(
            saving.state_dict_saver,
            "save",
            lambda state, checkpoint_id: fill_up(checkpoint_id),
        )
        with pytest.raises(StoreError, match=rf"no space left.*{good.name}, is kept.*same command"):
            train(settings(tiles, run))
    assert [p.name for p in (run / "checkpoints").iterdir()] == [good.name]
    usage = saving.shutil.disk_usage(run)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(saving.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(StoreError, match="no space left"):
            train(settings(tiles, run))
    assert [p.name for p in (run / "checkpoints").iterdir()] == [good.name]
    train(settings(tiles, run))
    assert saved_steps.latest(run).name == "step-00000006"


def fill_up(folder):
    (Path(folder) / "half.distcp").write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from training.trainer import lock\n"
        "with lock.held(Path(sys.argv[1])): print('held', flush=True); time.sleep(99)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {process.pid} on "), lock.held(tmp_path):
        pass
    process.kill()
    process.communicate()
    with lock.held(tmp_path):
        pass


def test_a_signal_finishes_the_step_saves_and_exits_0(tiles, tmp_path):
    long = values(tiles, tmp_path / "run")
    long["optim"]["steps"] = 100_000
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(long))
    command = [sys.executable, "-m", "training.pretrain", str(tmp_path / "recipe.yaml")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log, until = tmp_path / "run/log.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    with pytest.raises(ConfigError, match=f"in use by another run.*process {process.pid}"):
        train(config.check(long))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    step = int(re.search(r"stopped by SIGTERM after step (\d+) of 100000", errors)[1])
    assert saved_steps.latest(tmp_path / "run").name == f"step-{step:08d}"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_are_noted_and_handlers_restored(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with signals.listening() as request:
        assert request.signal is None
        signal.raise_signal(number)
        assert request.signal == name
        if name == "SIGINT":
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("method", METHODS)
def test_a_run_starts_from_the_state_of_another_run(tiles, tmp_path, method):
    first = train(settings(tiles, tmp_path / "first", method))
    onward = values(tiles, tmp_path / "onward", method, minutes=1e-9)
    # A learning rate of nearly 0: after one step the weights are still those of the other run, but
    # averages change.
    onward["optim"] = {
        "steps": 3,
        "lr": 1e-30,
        "lr_end": 0,
        "head_lr": 1e-30,
        "warmup": 0,
        "weight_decay": [0, 0],
    }
    onward["start_from"] = str(first)
    run = train(config.check(onward))
    old, new = state_of(first), state_of(run)
    follow = ("/method/average", "/method/teacher")
    learnt = [
        k
        for k in old
        if k.startswith("/method") and k.endswith("weight") and not k.startswith(follow)
    ]
    assert len(learnt) > 10
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in learnt)
    steps = [k for k in old if k.endswith("/step")]
    assert steps
    assert all(old[k] == 6 and new[k] == 7 for k in steps)
    moments = [k for k in old if k.endswith("exp_avg_sq") and old[k].any()]
    assert all(new[k].any() for k in moments)


def test_a_start_of_another_method_architecture_or_head_is_refused(tiles, tmp_path):
    first = train(settings(tiles, tmp_path / "first", "dino", minutes=1e-9))
    base = {**values(tiles, tmp_path / "onward", "dino"), "start_from": str(first)}
    for change, kind, words in (
        (
            {"method": METHODS["simclr"]},
            ConfigError,
            "method.name is 'dino', this run's is 'simclr'",
        ),
        (
            {"backbone": {"architecture": "test_resnet2", "input_size": 64}},
            Exception,
            "test_resnet2",
        ),
        (
            {"method": {**METHODS["dino"], "prototypes": 32}},
            IncompatibleWeights,
            r"last\.weight.*16.*32",
        ),
        (
            {"start_from": str(tmp_path)},
            ConfigError,
            "neither a run with a checkpoint nor a checkpoint",
        ),
    ):
        with pytest.raises(kind, match=words):
            train(config.check({**base, **change}))


def test_settings_added_later_have_their_defaults_in_old_checkpoints(tiles, tmp_path):
    run = train(settings(tiles, tmp_path / "run", minutes=1e-9))
    meta = saved_steps.latest(run) / "run.json"
    old = json.loads(meta.read_text())
    del old["settings"]["optim"]["accumulate"], old["settings"]["start_from"]
    meta.write_text(json.dumps(old))
    train(settings(tiles, run, minutes=1e-9))
    assert saved_steps.latest(run).name == "step-00000002"


def test_gradients_of_the_parts_of_a_batch_are_accumulated(tiles, tmp_path, caplog):
    cut = values(tiles, tmp_path / "run", "dino", minutes=1e-9)
    cut["optim"]["accumulate"] = 3
    run = train(config.check(cut))
    assert json.loads((run / "log.jsonl").read_text().splitlines()[0])["loss"] > 0
    with pytest.raises(ConfigError, match="cannot be divided evenly"):
        train(config.check({**cut, "optim": {"steps": 1, "accumulate": 4}}))
    with pytest.raises(ConfigError, match="less than 2 tiles"):
        train(config.check({**cut, "optim": {"steps": 1, "accumulate": 6}}))
    contrastive = values(tiles, tmp_path / "other", minutes=1e-9)
    contrastive["optim"]["accumulate"] = 2
    with caplog.at_level(logging.WARNING):
        train(config.check(contrastive))
    assert "compares the 3 tiles of one part" in caplog.text


def test_a_run_of_two_processes_is_resumed_by_one(tiles, tmp_path):
    """Tiles, views and joint batch are those of one process; only the order of sums differs."""
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(values(tiles, tmp_path / "two", "dino", minutes=1e-9))
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command = [*launch, "-m", "training.pretrain", str(tmp_path / "recipe.yaml")]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=alone, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "2 processes on cpu" in done.stderr
    assert saved_steps.latest(tmp_path / "two").name == "step-00000001"
    two = train(settings(tiles, tmp_path / "two", "dino"))
    one = train(settings(tiles, tmp_path / "one", "dino"))
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    losses = [[line["loss"] for line in log if line["kind"] == "train"] for log in logs]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    first = [log[0] for log in logs]
    assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=1e-5)
