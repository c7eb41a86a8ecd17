"""Every recipe, small, on one and two processes: trained, killed, resumed and exported.

    python -m tests.benchmarks.recipes [--only dino] [--processes 1 2]

Each recipe of training/recipes gets a small sibling (tests/support/small_recipes.py) that trains on
tiles cut from scikit-image's pictures, through `python -m training.pretrain`. It is killed with
SIGKILL after its first checkpoint and started again with the same command. ViTs also run with
sharded weights. Printed: whether each resumed from its checkpoint, finished, and gave an encoder
that can be read; then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pathencoder import load_encoder
from tests.support import small_recipes
from training import config

ROOT = Path(__file__).parents[2]
_SECONDS = 1200  # for one start
_STEPS = ("optim.steps=12", "run.checkpoint_every=3")


def started(arguments: list[str], processes: int, log: Path) -> list[subprocess.Popen[bytes]]:
    """The command once a process, in the environment that torchrun gives."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    found = []
    for rank in range(processes):
        own = {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        with log.open("ab") as stream:
            found.append(
                subprocess.Popen(
                    [sys.executable, "-m", "training.pretrain", *arguments],
                    cwd=ROOT,
                    stdout=stream,
                    stderr=stream,
                    env={"OMP_NUM_THREADS": "1", **os.environ, **own},
                )
            )
    return found


def kill_after_checkpoint(processes: list[subprocess.Popen[bytes]], out: Path) -> bool:
    """SIGKILL as soon as a checkpoint is there; returns whether the run was still going."""
    ends = time.monotonic() + _SECONDS
    while time.monotonic() < ends and all(p.poll() is None for p in processes):
        if any(out.glob("checkpoints/step-*/run.json")):
            break
        time.sleep(0.02)
    alive = all(p.poll() is None for p in processes)
    for p in processes:
        if p.poll() is None:
            p.send_signal(signal.SIGKILL)
        p.wait()
    return alive


def finished(processes: list[subprocess.Popen[bytes]]) -> bool:
    """Whether every process ends with status 0."""
    try:
        return all([p.wait(_SECONDS) == 0 for p in processes])
    except subprocess.TimeoutExpired:
        return False
    finally:
        for p in processes:
            p.kill()


def trial(recipe: Path, tiles: Path, folder: Path, processes: int, parallel: str) -> dict[str, Any]:
    """One recipe on so many processes: a row of the table."""
    out, log = folder / "run", folder / "output.txt"
    settings = [*small_recipes.sibling(recipe, tiles, out), *_STEPS, f"run.parallel={parallel}"]
    arguments, began = [str(recipe), *settings], time.monotonic()
    killed = kill_after_checkpoint(started(arguments, processes, log), out)
    step = max((int(p.parent.name[5:]) for p in out.glob("checkpoints/*/run.json")), default=0)
    done = killed and finished(started(arguments, processes, log))
    words = log.read_text(errors="replace")
    row = {
        "recipe": str(recipe.relative_to(ROOT / "training/recipes").with_suffix("")),
        "processes": processes,
        "parallel": parallel if processes > 1 else "-",
        "killed_at": step,
        "resumed": f"steps {step} to 12" in words,
        "finished": done,
        "exported": done and _reads(out / "export"),
        "seconds": round(time.monotonic() - began, 1),
    }
    row["good"] = all(bool(row[k]) for k in ("killed_at", "resumed", "finished", "exported"))
    if not row["good"]:
        print("\n".join(words.splitlines()[-15:]), flush=True)
    return row


def _reads(folder: Path) -> bool:
    """Whether a folder is an encoder that loads, or a nuclei network."""
    about = json.loads((folder / "config.json").read_text())
    return "architecture" not in about or load_encoder(str(folder)).spec.dim > 0


def ways(recipe: Path, tiles: Path, processes: list[int]) -> list[tuple[int, str]]:
    """Processes and strategy of a recipe's trials."""
    cfg = config.load(recipe, [f"data.root={tiles}"])
    sharded = [(n, "fsdp") for n in processes if n > 1 and small_recipes.is_vit(cfg)]
    return [(n, "ddp") for n in processes] + sharded


def main() -> None:
    """Print a line per trial and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Part of a recipe's path.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        tiles = small_recipes.write_pictures(Path(folder) / "tiles")
        for recipe in sorted((ROOT / "training/recipes").rglob("*.yaml")):
            if asked.only not in str(recipe.relative_to(ROOT)):
                continue
            for n, parallel in ways(recipe, tiles, asked.processes):
                here = Path(folder) / f"trial-{len(rows)}"
                here.mkdir()
                row = trial(recipe, tiles, here, n, parallel)
                rows.append(row)
                print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    print(json.dumps(rows))
    sys.exit(0 if rows and all(r["good"] for r in rows) else 1)


if __name__ == "__main__":
    main()
