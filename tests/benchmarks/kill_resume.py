"""A run that is killed repeatedly, compared with an uninterrupted one.

    python -m tests.benchmarks.kill_resume [--method dino]

A very small network is trained on tiles made here. One run is uninterrupted. Another is killed with
SIGKILL at a random moment every few hundred steps and started again with the same command. Printed:
where it was killed, where it resumed, and whether every tensor of the last checkpoint
(weights, averages, heads, centres, optimiser) and every logged loss is bitwise the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

ROOT = Path(__file__).parents[2]
SMALL = {
    "simclr": {"crop": {"px": 32}, "hidden": 32, "out": 16},
    "byol": {"crop": {"px": 32}, "hidden": 32, "out": 16},
    "dino": {
        "global_crops": {"px": 32},
        "local_crops": {"count": 2, "px": 16},
        "hidden": 32,
        "bottleneck": 8,
        "prototypes": 32,
    },
}


def write_recipe(folder: Path, method: str, steps: int, network: str, precision: str) -> Path:
    """Forty tiles of eight slides, and a recipe for them."""
    rng = np.random.default_rng(0)
    for slide in range(8):
        (folder / "tiles" / f"s{slide}").mkdir(parents=True)
        for i in range(5):
            noise = rng.integers(0, 200, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((48, 48)).save(
                folder / "tiles" / f"s{slide}" / f"{i}.png"
            )
    recipe = {
        "method": {"name": method, **SMALL[method]},
        "data": {"root": str(folder / "tiles"), "canvas": 48, "batch": 8},
        "backbone": {
            "architecture": network,
            "args": {"dynamic_img_size": True} if "vit" in network else {},
            "input_size": 64,
        },
        "optim": {"steps": steps, "warmup": 20, "precision": precision},
        "run": {"out": str(folder / "run"), "checkpoint_every": 100, "log_every": 10},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """The command as a user gives it."""
    command = [sys.executable, "-m", "training.pretrain", str(recipe), f"out={out}"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )


def lines(out: Path) -> list[dict[str, Any]]:
    """Whole lines of the log so far; a kill may have cut one."""
    file = out / "log.jsonl"
    found = []
    for text in file.read_text().splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return [line for line in found if line["kind"] == "train"]


def disturbed(recipe: Path, out: Path, every: int, seed: int) -> list[int]:
    """Run to the end, with a kill at a random time after each `every` steps.

    Returns:
        The last step logged before each kill.
    """
    rng, kills, target = random.Random(seed), list[int](), every
    while True:
        process = start(recipe, out)
        while process.poll() is None:
            seen = lines(out)
            if (
                seen
                and seen[-1]["step"] >= target
                and seen[-1]["step"] > (kills[-1] if kills else 0)
            ):
                time.sleep(rng.random())
                process.kill()
                process.communicate()
                kills.append(lines(out)[-1]["step"])
                target = kills[-1] + every
                break
            time.sleep(0.02)
        else:
            _, printed = process.communicate()
            if process.returncode:
                raise SystemExit(printed)
            return kills


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint."""
    newest = max((out / "checkpoints").glob("step-*"))
    dcp_to_torch_save(newest, out / "state.pt")

    def flat(value: Any, name: str) -> dict[str, torch.Tensor]:
        if isinstance(value, dict):
            return {
                k: v
                for key, inner in value.items()
                for k, v in flat(inner, f"{name}/{key}").items()
            }
        return {name: value} if isinstance(value, torch.Tensor) else {}

    return flat(torch.load(out / "state.pt", weights_only=False), newest.name)


def compare(method: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One method's two runs."""
    steps = asked.steps
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder), method, steps, asked.network, asked.precision)
        process = start(recipe, Path(folder) / "whole")
        _, printed = process.communicate()
        if process.returncode:
            raise SystemExit(printed)
        kills = disturbed(recipe, Path(folder) / "killed", asked.every, asked.seed)
        a, b = (tensors(Path(folder) / name) for name in ("whole", "killed"))
        different = [
            k
            for k in a.keys() | b.keys()
            if k not in a or k not in b or not torch.equal(a[k], b[k])
        ]
        first, second = (
            {line["step"]: line["loss"] for line in lines(Path(folder) / name)}
            for name in ("whole", "killed")
        )
    values = sum(t.numel() for t in a.values())
    found = {
        "method": method,
        "network": asked.network,
        "precision": asked.precision,
        "steps": steps,
        "kills": len(kills),
        "tensors": len(a),
        "values": values,
        "different": len(different),
    }
    print(f"{method:8} {steps} steps, killed after steps {kills}")
    print(
        f"         {len(a)} tensors of {values:,} values: {len(different)} differ; logged losses"
        f" equal: {first == second}",
        flush=True,
    )
    return {**found, "bitwise": not different and first == second}


def main() -> None:
    """Print a line per method and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=[*SMALL, "all"], default="all")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=300)
    parser.add_argument("--network", default="test_resnet", help="A timm architecture.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chosen = list(SMALL) if asked.method == "all" else [asked.method]
    found = [compare(method, asked) for method in chosen]
    print(json.dumps(found))
    sys.exit(0 if all(f["bitwise"] for f in found) else 1)


if __name__ == "__main__":
    main()
