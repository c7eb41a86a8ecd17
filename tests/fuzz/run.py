"""Give damaged files to the package and report every violation of its promises.

    python -m tests.fuzz.run [--minutes 60] [--seed 0] [--case N] [--keep DIR]

A violation is a traceback, an exception that is not one of the package's errors, more than 10 s of
CPU time (or 60 s of waiting) per case, memory above 2 GB, or an exit status or output other than
the documented one. Cases are numbered: the same seed and number give the same files. Prints each
finding, and at the end one line of JSON with the counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 10.0  # of the processor's time: other programs may keep a machine busy
WAIT_SECONDS = 60.0
BYTES = 2_000_000_000
START_SECONDS = 600.0


@dataclass
class Findings:
    """The result of a run; `wrong` holds (case, target, violation)."""

    cases: int = 0
    processor_seconds: float = 0.0
    targets: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, str, str]] = field(default_factory=list)


class Worker:
    """A child that runs cases; it is restarted if one takes too much time or memory."""

    def __init__(self) -> None:
        self._start()

    def case(self, seed: int, case: int) -> dict[str, Any]:
        """The child's answer, or the limit for which it was killed."""
        self._send(f"{seed} {case}\n")
        answer = self._answer(WAIT_SECONDS, SECONDS)
        if "killed" in answer:
            answer = {"target": "?", "wrong": answer["killed"]}
            self.close()
            self._start()
        return answer

    def keep(self, folder: Path, name: str) -> None:
        """Copy the files of the last case."""
        if (self.root / "work").is_dir():
            shutil.copytree(self.root / "work", folder / name, dirs_exist_ok=True)

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self.root, ignore_errors=True)

    def _start(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "HF_HUB_OFFLINE": "1",
        }
        places = [str(ROOT), str(ROOT / "tests/support")]  # training/ is no installed package
        before = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([*places, *([before] if before else [])])
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        answer = self._answer(START_SECONDS)
        if "ready" not in answer:
            raise SystemExit(
                f"the worker did not start: {answer}. Run `python -m tests.fuzz.worker` to see why"
            )
        self.root = Path(answer["ready"])

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def _answer(self, seconds: float, busy: float = math.inf) -> dict[str, Any]:
        """The next line, within limits of elapsed and CPU seconds."""
        assert self._process.stdout is not None
        ends, used = time.monotonic() + seconds, _processor_seconds(self._process.pid)
        while time.monotonic() < ends:
            if select.select([self._process.stdout], [], [], 0.05)[0]:
                line = self._process.stdout.readline()
                return (
                    json.loads(line)
                    if line
                    else {"killed": f"the process died ({self._process.wait()})"}
                )
            if _resident(self._process.pid) > BYTES:
                return {"killed": f"more than {BYTES / 1e9:g} GB of memory"}
            if _processor_seconds(self._process.pid) - used > busy:
                return {"killed": f"more than {busy:g} s of the processor's time"}
        return {"killed": f"more than {seconds:g} s"}


def fuzz(
    *, seconds: float, seed: int, first: int = 0, last: int | None = None, keep: Path | None = None
) -> Findings:
    """Run cases from `first` on until the time is up or `last` is reached."""
    found, worker = Findings(), Worker()
    ends = time.monotonic() + seconds
    case = first
    try:
        while time.monotonic() < ends and (last is None or case < last):
            answer = worker.case(seed, case)
            found.cases += 1
            found.processor_seconds += answer.get("seconds", 0.0)
            found.targets[answer["target"]] += 1
            if answer["wrong"]:
                found.wrong.append((case, answer["target"], answer["wrong"]))
                print(f"case {case} ({answer['target']}): {answer['wrong']}\n", flush=True)
                if keep is not None:
                    worker.keep(keep, f"{seed}-{case}")
            case += 1
    finally:
        worker.close()
    return found


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 outside Linux."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _processor_seconds(pid: int) -> float:
    """CPU seconds of a process; 0 outside Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="This one alone.")
    parser.add_argument("--first", type=int, default=0, help="The number to begin at.")
    parser.add_argument("--keep", type=Path, help="A folder for the files of every finding.")
    options = parser.parse_args()
    first = options.first if options.case is None else options.case
    last = None if options.case is None else options.case + 1
    found = fuzz(
        seconds=60 * options.minutes, seed=options.seed, first=first, last=last, keep=options.keep
    )
    print(
        json.dumps(
            {
                "seed": options.seed,
                "first": first,
                "cases": found.cases,
                "processor_s": round(found.processor_seconds),
                "wrong": len(found.wrong),
                **found.targets,
            }
        )
    )
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
