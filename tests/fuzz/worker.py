"""Runs cases one after the other in a process that the parent may kill.

Reads a line `SEED CASE`, writes a line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import targets


def one(bench: targets.Bench, seed: int, case: int, work: Path) -> dict[str, str]:
    """The result of a case: its target, and the violation ("" if there is none)."""
    rng = random.Random(seed * 1_000_003 + case)
    names = list(targets.TARGETS)
    name = rng.choices(names, [targets.TARGETS[n][1] for n in names])[0]
    try:
        targets.TARGETS[name][0](bench, work, rng)
    except targets.Violation as violation:
        return {"target": name, "wrong": str(violation)}
    except BaseException as error:
        return {
            "target": name,
            "wrong": f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}",
        }
    return {"target": name, "wrong": ""}


def main() -> None:
    """Serve cases until the input ends. The last working folder is kept for the parent."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        bench = targets.make_bench(root / "bench")
        print(json.dumps({"ready": str(root)}), file=answers, flush=True)
        for line in sys.stdin:
            seed, case = map(int, line.split())
            work = root / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            before = time.process_time()
            answer = one(bench, seed, case, work)
            print(
                json.dumps({**answer, "seconds": time.process_time() - before}),
                file=answers,
                flush=True,
            )
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
