"""Manifest, download, packing and training of an archive, killed and resumed, or undisturbed.

    python -m tests.benchmarks.kill_resume_archive [--slides 400] [--kills 10]

1. `training.archive manifest` of a folder of small slides: killed with SIGKILL at random moments,
   and started again, until it ends by itself;
2. `training.archive fetch` of slides of a loopback GDC that answers slowly and breaks every third
   connection: the same;
3. `training.archive pack` of small slides, of which one cannot be read: the same;
4. `training.pretrain` of a small network on shards, with a checkpoint every 20 steps: the same.

The manifest must have the bytes of the undisturbed one, every slide its own bytes, the shards and
tables their bytes, the exported weights theirs, and no unfinished file may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.manifest import make_archive
from tests.support.archive_servers import GdcService, Request, serving
from tests.support.paths import ROOT
from tests.support.small_archive import contents, packed, small_manifest, write_slide
from tests.support.small_recipes import sibling
from training.archive.store import csv_of, read_manifest

ARCHIVE = "training.archive"
RECIPE = ROOT / "training" / "recipes" / "byol_tiny_cpu.yaml"
STEPS = 200


class SlowGdc(GdcService):  # type: ignore[misc]
    """Answers that take a moment, of which every third is cut off."""

    def answer(self, request: Request) -> object:
        """The answer."""
        answer = super().answer(request)
        if request.path.startswith("/data/"):
            time.sleep(0.02)
            if len(self.requests) % 3 == 0:
                answer.cut = len(answer.body) // 2
        return answer


def killed_until_done(
    arguments: list[str], kills: int, longest: float, good: int = 0, module: str = ARCHIVE
) -> int:
    """Run a command, kill it up to `kills` times at random moments; how often it was killed."""
    rng = random.Random(0)
    for count in range(kills + 1):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        try:
            wait = rng.uniform(0.2, 0.6) * longest if count < kills else None
            text, _ = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            continue
        if process.returncode != good:
            raise SystemExit(f"the command ended with {process.returncode}:\n{text.decode()}")
        return count
    raise SystemExit("it did not end")


def undisturbed(arguments: list[str], good: int = 0, module: str = ARCHIVE) -> float:
    """Run a command; its seconds."""
    start = time.perf_counter()
    killed_until_done(arguments, 0, 0, good, module)
    return time.perf_counter() - start


def manifest(work: Path, slides: int, kills: int) -> dict[str, object]:
    """The first case."""
    make_archive(work / "archive", slides)
    whole, killed = work / "whole.parquet", work / "killed.parquet"
    seconds = undisturbed(["manifest", str(work / "archive"), "--out", str(whole)])
    line = ["manifest", str(work / "archive"), "--out", str(killed)]
    count = killed_until_done(line, kills, seconds)
    same = all(
        a.read_bytes() == b.read_bytes()
        for a, b in ((whole, killed), (csv_of(whole), csv_of(killed)))
    )
    left = [p.name for p in work.iterdir() if "incomplete" in p.name]
    return {"seconds": round(seconds, 1), "kills": count, "same": same, "left": left}


def download(work: Path, slides: int, kills: int) -> dict[str, object]:
    """The second case."""
    rng = np.random.default_rng(0)
    files = {
        f"id{i:04d}": (f"TCGA-XX-{i:04d}-01Z-00-DX1.svs", f"TCGA-XX-{i:04d}", rng.bytes(200_000))
        for i in range(slides)
    }
    with serving(SlowGdc(files)) as service:
        os.environ["GDC_URL"] = f"{service.address}/"
        out = work / "gdc.parquet"
        undisturbed(["manifest", "gdc:TCGA-XX", "--out", str(out)])
        seconds = undisturbed(["fetch", str(out), "--out", str(work / "whole")])
        line = ["fetch", str(out), "--out", str(work / "killed")]
        count = killed_until_done(line, kills, seconds)
        asked = sum(r.path.startswith("/data/") for r in service.requests)
    same = all(
        (work / "killed" / row.file).read_bytes() == files[row.source_id][2]
        for row in read_manifest(out).rows
    )
    left = [p.name for p in (work / "killed").rglob("*.partial*")]
    found = {"seconds": round(seconds, 1), "kills": count, "same": same, "left": left}
    return {**found, "requests_per_slide": round(asked / 2 / slides, 2)}


def packing(work: Path, slides: int, kills: int) -> dict[str, object]:
    """The third case."""
    for number in range(slides):
        write_slide(work / "slides" / f"case{number}_HE.tif", number)
    out = work / "slides.parquet"
    undisturbed(["manifest", str(work / "slides"), "--out", str(out), "--no-hash"])
    # it can be opened when it is listed, and not when it is packed
    (work / "slides" / "case1_HE.tif").write_bytes(b"no slide")
    given = ["pack", str(out), "--tile-px", "32", "--tiles", "0", "--shard-mb", "0.5"]
    seconds = undisturbed([*given, "--out", str(work / "whole")], good=3)
    count = killed_until_done([*given, "--out", str(work / "killed")], kills, seconds, good=3)
    whole, killed = contents(work / "whole"), contents(work / "killed")
    left = [name for name in killed if Path(name).name.startswith(".")]
    found = {"seconds": round(seconds, 1), "kills": count, "same": whole == killed, "left": left}
    return {**found, "shards": sum(name.endswith(".tar") for name in whole)}


def pretraining(work: Path, slides: int, kills: int) -> dict[str, object]:
    """The fourth case."""
    packed(small_manifest(work, min(slides, 8)), work)

    def line(out: Path) -> list[str]:
        more = [f"steps={STEPS}", "run.checkpoint_every=20", "export.licence=Apache-2.0"]
        return [str(RECIPE), *sibling(RECIPE, work / "shards", out), *more]

    whole, killed = work / "whole", work / "killed"
    seconds = undisturbed(line(whole), module="training.pretrain")
    count = killed_until_done(line(killed), kills, seconds, module="training.pretrain")
    weights = "export/model.safetensors"
    same = (whole / weights).read_bytes() == (killed / weights).read_bytes()
    left = [p.name for p in killed.rglob("*") if "incomplete" in p.name or ".step" in p.name]
    return {"seconds": round(seconds, 1), "kills": count, "same": same, "left": left}


CASES = {"manifest": manifest, "download": download, "pack": packing, "training": pretraining}


def main() -> None:
    """Run all, and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=CASES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = {}
        for case in [given.only] if given.only else CASES:
            folder = Path(name) / case
            folder.mkdir()
            figures[case] = CASES[case](folder, given.slides, given.kills)
    for case, found in figures.items():
        print(f"{case:10s} {found}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
