"""The time until the first embedding can start, and until the first tile of a slide is embedded.

    python -m tests.benchmarks.startup [runs]

The import, the load, and a whole new process, compared with one that only imports torch and timm.
Then `pathencoder encode SLIDE`, from the start of its process until the row of its first tile is
kept, compared with a process that imports torch and timm as they are, from its start to its end:
the limit is 1.4 times. Every figure is the median of several runs, each in a separate process, the
kinds in turn so that a busy machine slows all of them equally. CPU seconds (user and system, of
that process) are printed with wall seconds: on a shared machine they vary less. The slide has about
300 tiles.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.big_slides import write_slide

BAR = 1.4
MEASURE = """
import json, resource, sys, time
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
"""
PLAIN = "import torch, timm"
FITTED = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
"""
TIMM = "from pathencoder import compat; compat.import_timm()"
LOAD = "import pathencoder; pathencoder.load_encoder()"
KINDS = {  # what runs first, what is measured, what is reported beside it
    "import pathencoder": (
        "",
        "import pathencoder",
        "sorted({'torch', 'timm', 'numpy'} & set(sys.modules))",
    ),
    "load_encoder() after timm": (TIMM, LOAD, "[]"),
    "cold: torch and timm": ("import pathencoder", PLAIN, "[]"),
    "cold: load_encoder()": ("", LOAD, "[]"),
}
WHOLE = {  # whole processes; the first tile's row ends the command
    "process: torch and timm": f"{PLAIN}\nimport os; os._exit(0)",
    "process: encode, first tile": """
import os, sys
from pathencoder.cli.main import run
from pathencoder.features.journal import Journal
Journal.append = lambda *_: os._exit(0)
run(["encode", sys.argv[1], "--out", sys.argv[2]])
os._exit(1)
""",
}


def run(before: str, measured: str, extra: str) -> dict[str, float | list[str]]:
    """One process; wall and CPU seconds of `measured` alone."""
    code = (
        f"{MEASURE}\n{before}\nw, c = now()\n{measured}\nx, d = now()\nprint(json.dumps(dict(wall=x"
        f" - w, cpu=d - c, extra={extra})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    result: dict[str, float | list[str]] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_whole(code: str, slide: Path) -> dict[str, float | list[str]]:
    """Wall and CPU seconds of a process from its start to its end."""
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-c", code, str(slide), out]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode(errors="replace"))
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime}


def measure(runs: int) -> dict[str, list[dict[str, float | list[str]]]]:
    """All kinds in turn, `runs` times, after one that warms the disk's cache."""
    if subprocess.run([sys.executable, "-c", PLAIN], capture_output=True).returncode:
        # its wheel of CUDA beside a torch for the CPU: what it lacks is declared
        KINDS["cold: torch and timm"] = ("import pathencoder", FITTED, "[]")
        WHOLE["process: torch and timm"] = f"{FITTED}\nimport os; os._exit(0)"
    found: dict[str, list[dict[str, float | list[str]]]] = {k: [] for k in (*KINDS, *WHOLE)}
    with tempfile.TemporaryDirectory() as folder:
        slide = write_slide(Path(folder) / "slide.tiff", 300)
        for code in WHOLE.values():
            run_whole(code, slide)
        for _ in range(runs):
            for kind, parts in KINDS.items():
                found[kind].append(run(*parts))
            for kind, code in WHOLE.items():
                found[kind].append(run_whole(code, slide))
    return found


def main(runs: int = 5) -> None:
    """Measure, print the table and the bar, end with the ratios as one line of JSON."""
    found = measure(runs)
    medians = {
        kind: {key: statistics.median(float(r[key]) for r in rows) for key in ("wall", "cpu")}
        for kind, rows in found.items()
    }
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}   median of {runs} runs")
    for kind, row in medians.items():
        print(f"{kind:28}{row['wall']:9.3f}{row['cpu']:9.3f}")
    cold, bare = medians["cold: load_encoder()"], medians["cold: torch and timm"]
    imports, first = (medians[kind] for kind in WHOLE)
    ratio = first["wall"] / imports["wall"]
    reached = "reached" if ratio <= BAR else "not reached"
    print(f"the command until its first tile: {ratio:.2f} times the imports (<= {BAR}): {reached}")
    summary = {
        "import_s": round(medians["import pathencoder"]["wall"], 4),
        "import_cpu_s": round(medians["import pathencoder"]["cpu"], 4),
        "imported_with_it": found["import pathencoder"][0]["extra"],
        "load_s": round(medians["load_encoder() after timm"]["wall"], 4),
        "load_cpu_s": round(medians["load_encoder() after timm"]["cpu"], 4),
        "cold_ratio_wall": round(cold["wall"] / bare["wall"], 3),
        "cold_ratio_cpu": round(cold["cpu"] / bare["cpu"], 3),
        "first_tile_ratio_wall": round(ratio, 3),
        "first_tile_ratio_cpu": round(first["cpu"] / imports["cpu"], 3),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
