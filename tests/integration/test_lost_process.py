"""A process of a run on shards is killed: the run goes on without it, and draws the same tiles."""

import hashlib
import json
import os
import signal
from collections import defaultdict

import pytest
import torch
from groups import environment, free_port, spawned
from paths import ROOT
from small_archive import packed, small_manifest
from small_recipes import sibling

from training import pretrain
from training.provenance import saved_steps

pytestmark = [pytest.mark.full, pytest.mark.slow]
RECIPE = ROOT / "training" / "recipes" / "byol_tiny_cpu.yaml"
STEPS = 6
LOST_AT = 4  # the step in which a process is killed: the checkpoint is that of step 4, one before


def train(arguments, variables, seen, lost):
    """The command; writes the tiles of every step, as hashes of their pixels, into a file.

    `lost`: kill this process in step LOST_AT.
    """
    output = os.open(seen.with_suffix(".txt"), os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    os.environ |= variables
    before = pretrain._step

    def watched(run, cfg, step, batch, views):
        if lost and step == LOST_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        tiles = [hashlib.sha256(tile.numpy().tobytes()).hexdigest() for tile in batch.tiles]
        with seen.open("a") as file:
            file.write(json.dumps([step, tiles]) + "\n")
        return before(run, cfg, step, batch, views)

    pretrain._step = watched
    pretrain.end(pretrain.main(arguments))


def run(arguments, folder, processes, *, lose=None):
    """The command on some processes of one group; exit statuses, and step -> tiles of all."""
    folder.mkdir()
    port = free_port()
    started = [
        spawned(
            train,
            [str(RECIPE), *arguments],
            environment(rank, processes, port) if processes > 1 else {},
            folder / f"{rank}.jsonl",
            rank == lose,
        )
        for rank in range(processes)
    ]
    for process in started:
        process.join(300)
    return [process.exitcode for process in started], drawn(folder)


def drawn(folder):
    steps = defaultdict(list)
    for file in folder.glob("*.jsonl"):
        for step, tiles in map(json.loads, file.read_text().splitlines()):
            steps[step] += tiles
    return {step: sorted(tiles) for step, tiles in steps.items()}


def test_a_run_that_lost_a_process_goes_on_with_fewer_and_draws_the_same_tiles(tmp_path):
    packed(small_manifest(tmp_path), tmp_path)

    def settings(out):
        small = sibling(RECIPE, tmp_path / "shards", tmp_path / out)
        return [*small, f"optim.steps={STEPS}", "export.licence=Apache-2.0"]

    statuses, whole = run(settings("whole"), tmp_path / "whole seen", 2)
    assert statuses == [0, 0]
    assert [len(tiles) for tiles in whole.values()] == [8] * STEPS

    statuses, before = run(settings("lost"), tmp_path / "lost seen", 2, lose=1)
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] == 1  # it does not wait for the lost one
    said = (tmp_path / "lost seen" / "0.txt").read_text()
    assert "another process of this run ended" in said
    assert "Traceback" not in said
    assert all(before[step] == whole[step] for step in range(LOST_AT))
    saved = saved_steps.latest(tmp_path / "lost").name

    statuses, after = run(settings("lost"), tmp_path / "alone seen", 1)
    assert statuses == [0]
    first = int(saved.removeprefix("step-"))
    assert after == {step: whole[step] for step in range(first, STEPS)}
    assert (tmp_path / "lost" / "export" / "model.safetensors").exists()
