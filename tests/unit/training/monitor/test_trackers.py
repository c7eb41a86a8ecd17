"""A stopped and resumed run in TensorBoard and in W&B: each figure once, in one run."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT

from training.monitor.trackers import TensorBoard

pytestmark = pytest.mark.full


def written(folder, *, first_step, steps, value):
    tracker = TensorBoard(folder, first_step=first_step)
    for step in steps:
        tracker.write("train", step, {"loss": value + step, "culprit": "x", "lr": float("nan")})
    tracker.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_tensorboard_shows_a_resumed_run_as_one_curve(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def curve(folder):
        found = EventAccumulator(str(folder / "tensorboard")).Reload()
        assert found.Tags()["scalars"] == ["train/loss"]
        return [(event.step, event.value) for event in found.Scalars("train/loss")]

    written(tmp_path / "a", first_step=0, steps=(1, 2, 3, 4, 5), value=0)
    written(tmp_path / "a", first_step=3, steps=(4, 5, 6), value=100)  # from the checkpoint of 3
    assert curve(tmp_path / "a") == [(1, 1), (2, 2), (3, 3), (4, 104), (5, 105), (6, 106)]
    # stopped before the first checkpoint: it begins again
    written(tmp_path / "b", first_step=0, steps=(1, 2), value=0)
    written(tmp_path / "b", first_step=0, steps=(1, 2, 3), value=100)
    assert curve(tmp_path / "b") == [(1, 101), (2, 102), (3, 103)]


OFFLINE = """
import sys
from pathlib import Path
from training.monitor.trackers import WandB
first, last = int(sys.argv[2]), int(sys.argv[3])
tracker = WandB(Path(sys.argv[1]), "mine", {"seed": 0})
for step in range(first, last + 1):
    tracker.write("train", step, {"loss": 100.0 * first + step})
    tracker.write("knn", step, {"knn_a": 0.5})
tracker.close()
"""
READ = """
import json, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(content):
    # LevelDB's log: blocks of 32 KiB; a chunk is crc (4 bytes), length (2), kind (1), data
    at, parts = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""

for file in sorted(Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")):
    rows, run = [], None
    for record in records(file.read_bytes()):
        if record.HasField("run"):
            run = record.run.run_id
        if record.HasField("history"):
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            figures = [json.loads(items[key]) for key in ("train/loss", "knn/knn_a")]
            rows.append([record.history.step.num, *figures])
    print(json.dumps([run, rows]))
"""


def test_wandb_offline_keeps_one_run_and_its_steps(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb (pip install 'pathencoder[trackers]')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    environment |= {"WANDB_SILENT": "true", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def python(code, *arguments):
        command = [sys.executable, "-c", code, str(tmp_path / "run"), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "run").mkdir()
    python(OFFLINE, 1, 3)
    python(OFFLINE, 3, 5)
    (one, before), (other, after) = map(json.loads, python(READ).splitlines())
    assert one == other == (tmp_path / "run/wandb_id").read_text()
    # both kinds of a step are in one row
    assert before == [[1, 101.0, 0.5], [2, 102.0, 0.5], [3, 103.0, 0.5]]
    assert after == [[3, 303.0, 0.5], [4, 304.0, 0.5], [5, 305.0, 0.5]]
