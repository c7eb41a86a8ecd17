"""`python -m training.archive pack` as a process: four commands, kills, crashes, Ray."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from deadly_paths import DeadlyPath
from paths import ROOT
from processes import children_of, is_running
from small_archive import SMALL, contents, packed, small_manifest, write_slide

from training.archive.__main__ import main
from training.archive.pack import run as packing
from training.archive.pack.layout import extended
from training.archive.store import read_manifest

pytestmark = pytest.mark.full
PACK = ("--tiles", "12", "--tile-px", "64")


def run(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    return done.exit_code, done.output


def start(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process):
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


@pytest.mark.slow
def test_four_commands_lead_from_a_folder_of_slides_to_a_step_of_dino(tmp_path):
    for i in range(3):
        write_slide(tmp_path / "slides" / f"case{i}_HE.tif", i)
    out, shards, trained = tmp_path / "m.parquet", tmp_path / "shards", tmp_path / "run"
    ended(start("training.archive", "manifest", tmp_path / "slides", "--out", out,
                "--licence", "P", "--split", "train=1"))  # fmt: skip
    text = ended(start("training.archive", "pack", out, "--out", shards, *PACK))
    assert "36 tiles of 3 slides in 1 shard," in text
    text = ended(start("training.plan", "--manifest", out, "--model", "vit_small", "--gpus", "1"))
    assert "GPU-hours" in text
    small = ("data.batch=4", "data.canvas=64", "method.prototypes=64", "optim.steps=1",
             "optim.warmup=0", "run.keep_mb=0", "export.licence=Apache-2.0")  # fmt: skip
    recipe = ROOT / "training" / "recipes" / "dino_tiny_cpu.yaml"
    crops = ("method.global_crops.px=48", "method.local_crops.px=32")
    ended(start("training.pretrain", recipe, f"data.root={shards}", f"run.out={trained}",
                *small, *crops))  # fmt: skip
    assert (trained / "export" / "model.safetensors").exists()


def test_wrong_use_is_one_message(tmp_path):
    rows = small_manifest(tmp_path, 1)
    assert len(rows) == 1
    out, shards = tmp_path / "m.parquet", tmp_path / "shards"
    assert run("pack", out, "--out", shards, "--mpp", "0")[0] == 1
    assert run("pack", tmp_path / "no.parquet", "--out", shards)[0] == 1
    assert run("pack", out, "--out", shards, "--shard", "3/2")[0] == 2
    assert "no folder of shards" in run("verify", shards)[1]
    text = (tmp_path / "m.csv").read_text()
    (tmp_path / "m.csv").write_text(text.replace(",he,", ",purple,"))
    status, said = run("pack", out, "--out", shards)
    assert (status, "'purple'" in said, shards.exists()) == (1, True, False)


def test_bad_slides_are_named_and_the_status_says_so(tmp_path):
    small_manifest(tmp_path)
    (tmp_path / "slides" / "case1_HE.tif").write_bytes(b"no slide")
    status, said = run("pack", tmp_path / "m.parquet", "--out", tmp_path / "shards", *PACK)
    assert status == 3
    assert "24 tiles of 2 slides" in said
    assert "case1_HE: " in said
    assert run("verify", tmp_path / "shards") == (0, f"{tmp_path / 'shards'}: no problems\n")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes_and_leaves_no_process(tmp_path):
    small_manifest(tmp_path, 8)
    out, whole, killed = tmp_path / "m.parquet", tmp_path / "whole", tmp_path / "killed"
    given = ("--tiles", "0", "--mpp", "0.5", "--mpp", "1", "--tile-px", "32", "--shard-mb", "0.1")
    assert run("pack", out, "--out", whole, *given)[0] == 0
    process = start("training.archive", "pack", out, "--out", killed, *given)
    until = time.monotonic() + 60
    while not list(killed.glob(".*.journal")) and time.monotonic() < until:
        time.sleep(0.005)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert children
    while any(map(is_running, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, children))
    assert not (killed / "slides.csv").exists()
    assert run("pack", out, "--out", killed, *given)[0] == 0
    assert contents(killed) == contents(whole)
    assert not [f for f in killed.iterdir() if f.name.startswith(".")]


def jobs_of(root, rows, settings, places=None):
    out = root / "shards"
    out.mkdir()
    layout = extended(out, rows, settings, is_wanted=lambda _: True, again=lambda _: ())
    by_name = {row.slide: row for row in rows}
    jobs = [packing._job(n, layout, out, by_name, root) for n in range(len(layout.groups))]
    return [dataclasses.replace(job, places={**job.places, **(places or {})}) for job in jobs]


@pytest.mark.slow
def test_a_reader_that_crashes_costs_its_slide_alone(tmp_path):
    rows = small_manifest(tmp_path, 4)
    deadly = {"case1_HE": DeadlyPath(tmp_path / "slides" / "case1_HE.tif")}
    jobs = jobs_of(tmp_path, rows, dataclasses.replace(SMALL, shard_mb=0.013), deadly)
    assert len(jobs) == 2
    found = dict(packing._in_processes(jobs, 2))
    entries = {e["slide"]: e for record in found.values() for e in record["slides"]}
    assert entries.pop("case1_HE")["problem"].startswith("the reader crashed on it")
    assert [e["problem"] for e in entries.values()] == ["", "", ""]


@pytest.mark.slow
def test_ray_writes_the_same_bytes(tmp_path):
    pytest.importorskip("ray")
    rows = small_manifest(tmp_path, 4)
    settings = dataclasses.replace(SMALL, shard_mb=0.013)
    packed(rows, tmp_path, settings)
    here = contents(tmp_path / "shards")
    (tmp_path / "shards").rename(tmp_path / "here")
    found = packed(rows, tmp_path, settings, where=packing.Where(ray="local"))
    assert (found.groups, found.left) == (2, 0)
    assert contents(tmp_path / "shards") == here
    assert len(read_manifest(tmp_path / "m.parquet").rows) == 4
