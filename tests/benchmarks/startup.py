"""The time until the first embedding can start.

The import, the load, and a whole new process, compared with one that only imports timm.

    python -m tests.benchmarks.startup [runs]

Every figure is the median of several runs, each in a separate process, the kinds in turn so that
a busy machine slows all of them equally. CPU seconds (user and system, of that process) are
printed with wall seconds: on a shared machine they vary less.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

MEASURE = """
import json, resource, sys, time
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime
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
    "cold: torch and timm": ("import pathencoder", TIMM, "[]"),
    "cold: load_encoder()": ("", LOAD, "[]"),
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


def main(runs: int = 5) -> None:
    """Measure, print the table, end with the ratios as one line of JSON."""
    found: dict[str, list[dict[str, float | list[str]]]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind, parts in KINDS.items():
            found[kind].append(run(*parts))
    medians = {
        kind: {key: statistics.median(float(r[key]) for r in rows) for key in ("wall", "cpu")}
        for kind, rows in found.items()
    }
    print(f"{'':28}{'wall s':>9}{'CPU s':>9}   median of {runs} runs")
    for kind, row in medians.items():
        print(f"{kind:28}{row['wall']:9.3f}{row['cpu']:9.3f}")
    cold, bare = medians["cold: load_encoder()"], medians["cold: torch and timm"]
    loaded = found["import pathencoder"][0]["extra"]
    summary = {
        "import_s": round(medians["import pathencoder"]["wall"], 4),
        "import_cpu_s": round(medians["import pathencoder"]["cpu"], 4),
        "imported_with_it": loaded,
        "load_s": round(medians["load_encoder() after timm"]["wall"], 4),
        "load_cpu_s": round(medians["load_encoder() after timm"]["cpu"], 4),
        "cold_ratio_wall": round(cold["wall"] / bare["wall"], 3),
        "cold_ratio_cpu": round(cold["cpu"] / bare["cpu"], 3),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
