"""Many slides, killed repeatedly and resumed, and shared by processes, against an undisturbed run.

    python -m tests.benchmarks.kill_resume_slides [--slides 200] [--kills 10] [--keep FOLDER]

Small slides that all differ are made here (tifffile and OpenSlide are needed) and encoded by a very
small network with `pathencoder encode`:

1. undisturbed;
2. killed with SIGKILL, with all its threads and children, at random moments, and started again with
   the same command until it ends by itself. After each kill every file in the output folder is read
   whole;
3. by two commands at the same time in one folder;
4. the same as on two machines: without the system's locks, so that only leases keep them apart. One
   of the two is killed on the way, and the other ends its slide. Leases are renewed every 0.5 s
   here, so that this takes seconds.

Every run must give the rows and coordinates of the first, bit for bit, and leave nothing
unfinished in the folder. In 3, the rows computed by both are those of all slides: each slide is
embedded once. In 4 at most one slide may be repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.features.store import read_features
from tests.support import small_encoders
from tests.support.paths import ROOT
from tests.support.small_slides import section, write_tiff

BEAT = 0.5  # seconds between two renewals of a lease, in the fourth run


def write_slides(folder: Path, count: int) -> Path:
    """Slides of 50 to 130 tiles; no two are alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        left, top = rng.integers(40, 160, 2).tolist()
        width, height = (64 * rng.integers(8, 12, 2)).tolist()
        pixels = section(1024, 1024, ((left, top, left + width, top + height),), seed=number)
        write_tiff(folder / f"s{number:04d}.tiff", pixels, mpp=0.5)
    return folder


def start(work: Path, out: Path, machine: str = "") -> subprocess.Popen[str]:
    """The command as a user gives it; with a `machine`, as if it ran on that one."""
    module = ["tests.benchmarks.kill_resume_slides", "--as-machine", machine]
    line = [*(module if machine else ["pathencoder"]), "encode", str(work / "slides")]
    line += ["--as", "slides", "--encoder", str(work / "small"), "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", *line, "--workers", "1", "--out", str(out), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=(out.parent / f"{out.name}-{machine or 'log'}.txt").open("a"),
        text=True,
        start_new_session=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )


def as_machine(name: str, arguments: list[str]) -> int:
    """Run a command as if on a machine of its own: no lock of the system holds between two."""
    import filelock

    from pathencoder import leases
    from pathencoder.cli.main import run

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    filelock.FileLock.acquire = refuse  # type: ignore[method-assign, assignment]
    leases.BEAT, leases.STALE = BEAT, 10 * BEAT
    leases._machine = lambda device: name
    return run(arguments)


def ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for a command; its inputs with their status and new rows."""
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the command ended with {process.returncode}:\n{printed}")
    inputs: list[dict[str, Any]] = json.loads(printed)["inputs"]
    return inputs


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def rows_of(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Rows and coordinates of every feature file; reading compares their checksums."""
    files = sorted(p for p in folder.glob("*.h5") if not p.name.startswith("."))
    found = {file.name: read_features(file) for file in files}
    return {name: (one.rows, one.coords) for name, one in found.items()}


def differences(expected: dict[str, tuple[Any, Any]], folder: Path) -> Iterator[str]:
    """What differs from the undisturbed run, and what else lies in the folder."""
    found = rows_of(folder)
    for name, (rows, coords) in expected.items():
        if name not in found:
            yield f"{name} is missing"
        elif not np.array_equal(found[name][1], coords):
            yield f"{name} has other coordinates"
        elif not np.array_equal(found[name][0], rows):
            yield f"{name}: rows differ by {np.abs(found[name][0] - rows).max():.2g}"
    yield from (f"{name} is left" for name in os.listdir(folder) if name.startswith("."))


def killed(work: Path, out: Path, kills: int, seconds: float, rng: random.Random) -> list[int]:
    """Run to the end with kills at random moments.

    Args:
        work: Folder of the slides.
        out: The output folder.
        kills: How many.
        seconds: That the undisturbed run took for the slides, after its start.
        rng: For the moments.

    Returns:
        The number of finished slides at each kill.
    """
    done = list[int]()
    while len(done) < kills:
        process = start(work, out)
        wait_until_begun(process, out, len(done) + 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, seconds / (kills + 1)))
        if process.poll() is not None:
            raise SystemExit(f"it had ended after {len(done)} kills: more slides are needed")
        kill(process)
        done.append(len(rows_of(out)))
    if any(one["status"] not in ("done", "before") for one in ended(start(work, out))):
        raise SystemExit("a slide was not done")
    ended(start(work, out))  # nothing to do, but for what a kill just after the last step left
    return done


def wait_until_begun(
    process: subprocess.Popen[str], out: Path, runs: int, log: str = "log"
) -> None:
    """Wait until the last of several runs has loaded its network and begins with the slides."""
    file = out.parent / f"{out.name}-{log}.txt"
    while process.poll() is None and file.read_text().count("[1/") < runs:
        time.sleep(0.01)


def shared(work: Path, out: Path, total: int) -> Iterator[str]:
    """Two commands in one folder; what is wrong with their reports."""
    both = [ended(process) for process in [start(work, out), start(work, out)]]
    new = [sum(one["new"] for one in inputs) for inputs in both]
    slides = [sum(one["new"] > 0 for one in inputs) for inputs in both]
    print(f"3. two commands: {slides[0]} and {slides[1]} slides, {new[0]:,} and {new[1]:,} rows")
    if sum(new) != total:
        yield f"{sum(new):,} rows were computed, not {total:,}"


def two_machines(work: Path, out: Path, seconds: float, rng: random.Random) -> Iterator[str]:
    """Two commands that only leases keep apart, one of them killed; what is wrong."""
    first, second = start(work, out, "one"), start(work, out, "two")
    wait_until_begun(second, out, 1, "two")
    time.sleep(rng.uniform(0.1, 0.3) * seconds)
    before = rows_of(out)
    kill(second)
    there = {**before, **rows_of(out)}
    inputs = ended(first)
    rest = {Path(one["input"]).stem: one for one in inputs}
    mine = [one for one in rest.values() if one["new"]]
    theirs = len(rest) - len(mine)
    print(f"4. two machines: one killed with {len(there)} slides done; it made {theirs} of them")
    if any(one["status"] not in ("done", "before") for one in inputs):
        yield f"not done: {[k for k, one in rest.items() if one['status'] == 'busy']}"
    most = max(len(rows) for rows, _ in there.values()) if there else 0
    made_by_second = sum(one["rows"] for one in rest.values() if not one["new"])
    total = sum(one["rows"] for one in inputs)
    if sum(one["new"] for one in mine) + made_by_second < total - 2 * most:
        yield "rows are missing from the reports"
    time.sleep(12 * BEAT)  # the lease of the killed one is stale now; the next run removes it
    ended(start(work, out, "one"))


def main() -> None:
    """Print a line for each run and one line of JSON."""
    if sys.argv[1:2] == ["--as-machine"]:
        sys.exit(as_machine(sys.argv[2], sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="An empty folder for all files.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bad = compare(asked.keep or Path(temporary), asked)
    print(json.dumps({"slides": asked.slides, "kills": asked.kills, "differences": bad}))
    sys.exit(1 if bad else 0)


def compare(work: Path, asked: argparse.Namespace) -> list[str]:
    """All four runs; what is wrong with them."""
    rng = random.Random(asked.seed)
    small_encoders.encoder("cnn").save_pretrained(work / "small")
    write_slides(work / "slides", asked.slides)
    process = start(work, work / "whole")
    wait_until_begun(process, work / "whole", 1)
    began = time.monotonic()
    total = sum(one["new"] for one in ended(process))
    seconds = time.monotonic() - began
    expected = rows_of(work / "whole")
    print(f"1. undisturbed: {len(expected)} slides, {total:,} rows, {seconds:.0f} s", flush=True)
    bad = [f"{asked.slides - len(expected)} slides are missing"] * (len(expected) != asked.slides)
    done = killed(work, work / "killed", asked.kills, seconds, rng)
    bad += [f"killed: {text}" for text in differences(expected, work / "killed")]
    print(f"2. killed {len(done)} times, after {done} slides; read whole each time", flush=True)
    bad += [f"shared: {text}" for text in shared(work, work / "shared", total)]
    bad += [f"shared: {text}" for text in differences(expected, work / "shared")]
    bad += [f"machines: {text}" for text in two_machines(work, work / "machines", seconds, rng)]
    bad += [f"machines: {text}" for text in differences(expected, work / "machines")]
    for text in bad[:20]:
        print(f"   WRONG: {text}")
    print(f"   different from the undisturbed run: {len(bad)}", flush=True)
    return bad


if __name__ == "__main__":
    main()
