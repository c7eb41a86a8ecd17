"""Slides on a Ray cluster whose workers are killed, against a run without Ray.

    python -m tests.benchmarks.kill_resume_ray [--slides 40] [--kills 5]

Small slides that all differ are made here (tifffile and OpenSlide are needed) and encoded by a very
small network: without Ray, and with `--ray local` and one worker a core. At random moments, while a
slide is in work, one of the workers is killed with SIGKILL. Every slide must be done, with the rows
and coordinates of the first run, bit for bit; nothing else may be left in the folder; and no more
slides are begun again than workers were killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.features.store import read_features
from tests.support import small_encoders
from tests.support.paths import ROOT
from tests.support.small_slides import section, write_tiff


def write_slides(folder: Path, count: int) -> None:
    """Slides of 190 to 330 tiles; no two are alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = (64 * rng.integers(14, 19, 2)).tolist()
        pixels = section(1400, 1400, ((80, 90, 80 + width, 90 + height),), seed=number)
        write_tiff(folder / f"s{number:04d}.tiff", pixels, mpp=0.5)


def start(work: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """The command as a user gives it."""
    line = ["encode", str(work / "slides"), "--as", "slides", "--encoder", str(work / "small")]
    line += ["--device", "cpu", "--batch-size", "8", "--out", str(out), "--json", *options]
    return subprocess.Popen(
        [sys.executable, "-m", "pathencoder", *line],
        cwd=ROOT,
        stdout=(work / f"{out.name}.json").open("w"),
        stderr=(work / f"{out.name}.txt").open("w"),
        text=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )


def parent_of(pid: int) -> int:
    """The parent of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def workers_of(driver: int) -> list[int]:
    """The processes of the driver's descendants that are in a job."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if not title.startswith(b"ray::Worker.run"):
            continue
        above = pid = int(folder.name)
        while above not in (0, 1, driver):
            above = parent_of(above)
        if above == driver:
            found.append(pid)
    return found


def disturb(process: subprocess.Popen[str], out: Path, kills: int, pause: float) -> int:
    """Kill workers at random moments; returns how many were killed before the end."""
    rng, killed = random.Random(0), 0
    while process.poll() is None:
        time.sleep(0.05 if killed == kills else rng.uniform(0.2, 2) * pause)
        partial = list(out.glob(".*.partial"))
        workers = workers_of(process.pid)
        if killed < kills and partial and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
    return killed


def compare(work: Path) -> dict[str, Any]:
    """The two folders, and what the summary of the second says."""
    plain, ray = work / "plain", work / "ray"
    names = sorted(p.name for p in plain.iterdir())
    features = [name for name in names if name.endswith(".h5")]
    summary = json.loads((work / "ray.json").read_text())
    again = [re.search(r"begun (\d+) times", " ".join(o["notes"])) for o in summary["inputs"]]
    return {
        "slides": len(features),
        "same files": names == sorted(p.name for p in ray.iterdir()),
        "done": sum(o["status"] == "done" for o in summary["inputs"]),
        "identical": sum(_same(plain / name, ray / name) for name in features),
        "begun again": sum(int(found[1]) - 1 for found in again if found),
    }


def _same(one: Path, other: Path) -> bool:
    if not other.exists():
        return False
    a, b = read_features(one), read_features(other)
    return np.array_equal(a.rows, b.rows) and np.array_equal(a.coords, b.coords)


def main() -> None:
    """Make slides, run, kill, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slides", type=int, default=40)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between kills, about")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_slides(work / "slides", asked.slides)
        small_encoders.encoder("cnn").save_pretrained(work / "small")
        if start(work, work / "plain").wait():
            raise SystemExit((work / "plain.txt").read_text())
        started = time.monotonic()
        process = start(work, work / "ray", "--ray", "local", "--ray-cores", "1")
        killed = disturb(process, work / "ray", asked.kills, asked.pause)
        if process.returncode:
            raise SystemExit((work / "ray.txt").read_text())
        found = {"killed": killed, "seconds": round(time.monotonic() - started), **compare(work)}
    for key, value in found.items():
        print(f"{key:12} {value}")
    found["holds"] = (
        found["same files"]
        and found["done"] == found["identical"] == asked.slides
        and found["begun again"] <= killed
    )
    print(json.dumps(found))
    if not found["holds"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
