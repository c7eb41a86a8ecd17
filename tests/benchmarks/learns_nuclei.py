"""Does patch contrast learn? Beside its own control at learning rate zero, on MoNuSeg train.

    python -m tests.benchmarks.learns_nuclei [--minutes M] [--table]

Trains training/recipes/bundled/nuclei_fcn_paper.yaml as it is (75 steps, about three core-minutes)
with three seeds, and the same runs at learning rate zero. No label is used: the channel
and its polarity are those that correlate most with hematoxylin. Prints Dice and AJI on the 30
images after the common post-processing (training/evaluation/nuclei.py), and the difference with its
95 % interval over images. Ends with one line of JSON. The same command continues a stopped one.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from pathencoder import metrics
from pathencoder.nuclei.network import ConfidenceNetwork
from training.evaluation import nuclei
from training.evaluation.nuclei_paper import confidence
from training.files import write_text

RECIPE = "training/recipes/bundled/nuclei_fcn_paper.yaml"
OUT = Path("runs/experiments/learns_nuclei")
SEEDS = (0, 1, 2)
ARMS = {
    "patch_contrast": (),
    "patch_contrast_control": ("optim.lr=0", "optim.lr_end=0", "optim.head_lr=0"),
}


def train(arm: str, seed: int) -> Path:
    """The exported network of an arm and a seed."""
    out = OUT / f"{arm}-s{seed}"
    command = ["-m", "training.pretrain", RECIPE, f"seed={seed}", f"out={out}", *ARMS[arm]]
    if not (out / "export" / "model.safetensors").exists():
        subprocess.run([sys.executable, *command], check=True)
    return out / "export"


def figures(export: Path, data: Path) -> list[nuclei.Row]:
    """Dice, AJI, PQ and F1 of every image; kept next to the network."""
    kept = export.parent / "figures.json"
    if not kept.exists():
        weights = load_file(export / "model.safetensors")
        network = ConfidenceNetwork(len(weights["head.weight"]))
        network.load_state_dict(weights)
        network.eval()
        channel, sign = nuclei.chosen_channel(network, data, export.parent / "channel.json")
        rows = nuclei.evaluate(
            nuclei.TRAINED_ON,
            data,
            lambda prepared: sign * (confidence(network, prepared)[channel] - np.float32(0.5)),
        )
        write_text(kept, json.dumps(rows))
    rows = json.loads(kept.read_text(encoding="utf-8"))
    return rows


def compare(seeds: list[int]) -> Iterator[tuple[str, dict[str, object]]]:
    """Dice and AJI: the means of both arms, and the paired difference over images."""
    sides = [
        np.array([json.loads((OUT / f"{arm}-s{s}" / "figures.json").read_text()) for s in seeds])
        for arm in ARMS
    ]
    for column, name in enumerate(("dice", "aji")):
        ours, theirs = (side[:, :, column] for side in sides)
        found = metrics.paired_difference(ours.mean(0), theirs.mean(0))
        yield (
            name,
            {
                "mean": [round(float(side.mean()), 4) for side in (ours, theirs)],
                "by_seed": [[round(float(v), 4) for v in s.mean(1)] for s in (ours, theirs)],
                "difference": [round(v, 4) for v in (found.value, found.low, found.high)],
            },
        )


def main() -> None:
    """Train, read and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="start no other run after this long")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/nuclei"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    ends = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    for seed in () if options.table else SEEDS:
        for arm in ARMS:
            if time.monotonic() < ends:
                figures(train(arm, seed), options.data)
    done = [s for s in SEEDS if all((OUT / f"{a}-s{s}" / "figures.json").exists() for a in ARMS)]
    if not done:
        raise SystemExit("no seed is finished yet")
    found = dict(compare(done))
    for name, row in found.items():
        print(f"{name:6s}{len(done)} seeds  {row}")
    print(json.dumps({"seeds": len(done), **found}))


if __name__ == "__main__":
    main()
