"""Checkpoints written while the run goes on: the same contents, and nothing lost by a kill."""

import errno
import os
import signal
import time

import pytest
import torch
from groups import spawned
from small_runs import settings, state_of, write_tiles
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from pathencoder.errors import StoreError
from training.pretrain import train

pytestmark = pytest.mark.full
WRITE = FileSystemWriter.write_data


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return write_tiles(tmp_path_factory.mktemp("tiles"))


def cfg_of(tiles, out, **run):
    return settings(tiles, out, **{"checkpoint_every": 2, "save_in_background": True, **run})


@pytest.fixture(scope="module")
def whole(tiles, tmp_path_factory):
    """A run whose checkpoints are written in the foreground."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return train(cfg_of(tiles, out, save_in_background=False, keep_every=2))


def test_a_checkpoint_holds_its_step_while_training_goes_on(tiles, whole, tmp_path, monkeypatch):
    logged = []

    def slowly(writer, plan, planner):
        until, log = time.monotonic() + 20, tmp_path / "run/log.jsonl"
        before = log.read_text().count('"train"')
        while before < 6 and log.read_text().count('"train"') == before:
            assert time.monotonic() < until, "no step was done during the write"
            time.sleep(0.01)
        logged.append(before)
        return WRITE(writer, plan, planner)

    monkeypatch.setattr(FileSystemWriter, "write_data", slowly)
    run = train(cfg_of(tiles, tmp_path / "run", keep_every=2))
    assert len(logged) == 3
    for step in (2, 4, 6):
        a, b = (state_of(r, step) for r in (run, whole))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)


def killed_in_its_second_checkpoint(cfg):
    """SIGKILL after the tensors of step 4 are written, before the checkpoint is whole."""

    def write(writer, plan, planner):
        done = WRITE(writer, plan, planner)
        if "00000004" in str(writer.path):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    FileSystemWriter.write_data = write
    train(cfg)


def test_a_kill_during_a_checkpoint_loses_nothing(tiles, whole, tmp_path):
    cfg = cfg_of(tiles, tmp_path / "run")
    process = spawned(killed_in_its_second_checkpoint, cfg)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    names = {p.name for p in (tmp_path / "run/checkpoints").iterdir()}
    assert names == {"step-00000002", ".step-00000004.incomplete"}
    run = train(cfg)
    names = {p.name for p in (run / "checkpoints").iterdir()}
    assert names == {"step-00000004", "step-00000006"}
    a, b = (state_of(r) for r in (run, whole))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_disk_that_is_full_in_the_background_ends_the_run(tiles, tmp_path, monkeypatch):
    def fill_up(writer, plan, planner):
        if "00000004" in str(writer.path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return WRITE(writer, plan, planner)

    monkeypatch.setattr(FileSystemWriter, "write_data", fill_up)
    with pytest.raises(StoreError, match=r"no space left.*step-00000002, is kept"):
        train(cfg_of(tiles, tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000002"]
