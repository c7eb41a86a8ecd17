"""The cost of decoding tiles for the training thread.

Microseconds of one small operation, alone and with decoding threads or processes.

    python -m tests.benchmarks.loader [--threads 1 4 12] [--processes 1 4] [--rounds 3]

A training thread that feeds a GPU launches thousands of such operations a step. Each releases the
interpreter lock and has to acquire it again, in competition with the decoding threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data.corpus import open_corpus
from training.data.loader import batches
from training.data.sampler import make_sampler
from training.data.tiles import Corpus

OPERATIONS = 10_000
STEPS = 1_000_000  # more than are read


def write_tiles(folder: Path, count: int = 64) -> Corpus:
    """JPEG tiles of 256 px, smooth noise, in eight slides."""
    rng = np.random.default_rng(0)
    for i in range(count):
        (folder / f"s{i % 8}").mkdir(exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        noise.resize((256, 256), Image.Resampling.BICUBIC).save(
            folder / f"s{i % 8}" / f"{i}.jpg", quality=90
        )
    return open_corpus(folder)


def microseconds(x: torch.Tensor) -> float:
    """Of one operation on 64 numbers, elapsed."""
    begun = time.perf_counter()
    for _ in range(OPERATIONS):
        x.add_(1)
    return (time.perf_counter() - begun) / OPERATIONS * 1e6


def beside(corpus: Corpus, **means: int) -> float:
    """The same while batches of 256 tiles are made one after the other."""
    sampler = make_sampler(corpus, batch=256, seed=0)
    feed = batches(corpus, sampler, canvas=256, start=0, stop=STEPS, **means)
    next(feed)
    cost = microseconds(torch.zeros(64))
    feed.close()
    return cost


def main() -> None:
    """Print medians over rounds, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_tiles(Path(folder))
        for _ in range(options.rounds):
            found.setdefault("alone", []).append(microseconds(torch.zeros(64)))
            for kind, counts in (("threads", options.threads), ("processes", options.processes)):
                for n in counts:
                    found.setdefault(f"{kind} {n}", []).append(beside(corpus, **{kind: n}))
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    for name, value in medians.items():
        print(f"{name:12} {value:8.1f} us  {value / medians['alone']:6.1f} x")
    print(json.dumps({"benchmark": "loader", "torch": torch.__version__, "microseconds": medians}))


if __name__ == "__main__":
    main()
