"""`python -m training.archive` from a folder and a service to slides; killed, and run again."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from archive_servers import GdcService, serving
from click.testing import CliRunner
from paths import ROOT
from processes import children_of, is_running
from small_slides import section, write_tiff

from training.archive.__main__ import main
from training.archive.store import csv_of, read_manifest

pytestmark = pytest.mark.full
RANDOM = np.random.default_rng(0)


@pytest.fixture
def gdc(monkeypatch):
    files = {
        f"id{i}": (f"TCGA-XX-000{i}-01Z-00-DX1.svs", f"TCGA-XX-000{i}", RANDOM.bytes(100_000))
        for i in range(6)
    }
    with serving(GdcService(files)) as service:
        monkeypatch.setenv("GDC_URL", f"{service.address}/")
        yield service


def run(*arguments):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    return done.exit_code, done.output


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "training.archive", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_folder_and_a_service_become_one_manifest_and_a_folder_of_slides(gdc, tmp_path):
    folder, out, slides = tmp_path / "archive", tmp_path / "m.parquet", tmp_path / "slides"
    folder.mkdir()
    write_tiff(folder / "1_HE.tif", section(600, 500))
    status, text = run("manifest", folder, "gdc:TCGA-XX", "--out", out, "--licence", "P")
    assert status == 0, text
    assert "7 slides of 6 patients" in text
    assert "stain: he 7" in text
    status, text = run("check", out)
    assert (status, "nothing is wrong" in text) == (0, True)
    del gdc.served["id3"]
    status, text = run("fetch", out, "--out", slides)
    assert status == 3
    assert "5 slides came" in text
    assert "TCGA-XX-0003-01Z-00-DX1 (gdc:TCGA-XX/diagnostic): GDC:" in text
    rows = {row.source_id: row for row in read_manifest(out).rows}
    assert sum(bool(row.sha256) for row in rows.values()) == 6
    assert (slides / rows["id1"].file).read_bytes() == gdc.served["id1"]
    gdc.served["id3"] = gdc.files["id3"][2]
    status, text = run("fetch", out, "--out", slides)
    assert (status, "1 slide came" in text, "here before: 5" in text) == (0, True, True)


def test_wrong_use_and_wrong_edits_are_one_message(gdc, tmp_path):
    out = tmp_path / "m.parquet"
    assert "name at least one SOURCE" in run("manifest", "--out", out)[1]
    status, text = run("manifest", "gdc:TCGA-NO", "--out", out)
    assert (status, "no slide was listed" in text, out.exists()) == (1, True, False)
    assert run("manifest", "gdc:TCGA-XX", "--out", out, "--licence", "mine")[0] == 1
    assert run("manifest", "gdc:TCGA-XX", "--out", out)[0] == 0
    lines = csv_of(out).read_text().split("\n")
    csv_of(out).write_text("\n".join([lines[0], lines[1].replace(",he,", ",purple,"), *lines[3:]]))
    status, text = run("check", out)
    assert status == 1
    assert "2 problems" in text
    assert "'purple'" in text
    assert "1 row was removed" in text


@pytest.mark.slow
def test_a_killed_download_ends_with_the_same_files(gdc, tmp_path):
    out, slides = tmp_path / "m.parquet", tmp_path / "slides"
    assert run("manifest", "gdc:TCGA-XX", "--out", out)[0] == 0
    answer = gdc.answer

    def slow(request):
        if request.path.startswith("/data/"):
            time.sleep(0.3)
        return answer(request)

    gdc.answer = slow
    process = start("fetch", out, "--out", slides, "--together", 2)
    until = time.monotonic() + 60
    while len([p for p in gdc.paths() if p.startswith("/data/")]) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    gdc.answer = answer
    assert run("fetch", out, "--out", slides)[0] == 0
    for row in read_manifest(out).rows:
        assert (slides / row.file).read_bytes() == gdc.served[row.source_id]
    left = {p.name for p in slides.rglob("*") if p.is_file() and "partial" in p.name}
    assert left == set()


@pytest.mark.slow
def test_a_killed_manifest_ends_with_the_same_bytes(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    write_tiff(folder / "0_HE.tif", section(600, 500))
    for i in range(1, 120):
        os.link(folder / "0_HE.tif", folder / f"{i}_HE.tif")
    whole, killed = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    assert run("manifest", folder, "--out", whole, "--processes", 1)[0] == 0
    cache = killed.with_name(f".{killed.name}.facts.jsonl")
    process = start("manifest", folder, "--out", killed, "--processes", 2)
    until = time.monotonic() + 60
    while not (cache.exists() and cache.stat().st_size > 2000) and time.monotonic() < until:
        time.sleep(0.01)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert children
    while any(map(is_running, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_running, children))
    assert run("manifest", folder, "--out", killed)[0] == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert csv_of(killed).read_bytes() == csv_of(whole).read_bytes()
