"""The throughput of a slide's encoding, relative to the cost of its parts.

    python -m tests.benchmarks.encode_slides [--tiles 1200] [--rounds 3] [--encoder NAME]

A slide is made whose tissue has about so many tiles. Measured in turn, in each round, eager fp32 on
all cores: the network alone on tiles that lie in memory (as the encoder runs it; the network with
its BatchNorms, as a user's own loop would run it, is printed apart), reading alone (our reader over
the same tiles, with the same threads), and `encode_slide`: opening, tissue, grid, tiles,
embeddings, the written file. Medians over the rounds. The limit is .9 of
1 / (1/network + 1/reading), all tiles a second. What else `encode_slide` does is printed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import pathencoder
from pathencoder import stream
from pathencoder.features.identity import identify_slide
from pathencoder.features.plan import SlidePlan, plan_slide, scale_of
from pathencoder.features.provenance import Settings
from pathencoder.outputs import readout
from pathencoder.runtime import Runner, pick_workers
from pathencoder.slides.grid import read_tile
from pathencoder.slides.reader import Slide
from tests.support.big_slides import write_slide

BAR = 0.9
_GROUP = 32  # tiles a call of the runner, as in the encoder
PARTS = ("network", "reading", "whole", "bare network", "opening", "tissue and grid", "hash")
RATED = 4  # of them are tiles a second


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plan_of(encoder: pathencoder.Encoder, slide: Slide) -> SlidePlan:
    """The slide's tiles, as `encode_slide` finds them."""
    settings = Settings()
    return plan_slide(encoder.spec, slide, scale_of(encoder.spec, slide, settings), settings)


def read_all(encoder: pathencoder.Encoder, slide: Slide, plan: SlidePlan) -> np.ndarray:
    """All tiles, read with the encoder's number of threads: uint8 [N, S, S, 3]."""
    filtered = encoder.spec.interpolation
    size = encoder.spec.input_size
    tiles = np.empty((len(plan.grid.coords), size, size, 3), np.uint8)

    def read(place: int) -> None:
        x, y = plan.grid.coords[place].tolist()
        tiles[place] = read_tile(slide, plan.grid, x, y, interpolation=filtered)

    with ThreadPoolExecutor(pick_workers(None)) as pool:
        list(pool.map(read, range(len(tiles))))
    return tiles


def run_all(runner: Runner, tiles: np.ndarray) -> None:
    """A network over tiles in memory."""
    for start in range(0, len(tiles), _GROUP):
        runner(tiles[start : start + _GROUP]).numpy()


def bare_runner(encoder: pathencoder.Encoder) -> Runner:
    """The encoder's network itself, instead of the folded copy that `encode` runs."""
    rows = readout(encoder.network, encoder.spec, "embedding")
    return Runner(encoder.network, rows, encoder.transform.normalise, batch=_GROUP)


def round_of(encoder: pathencoder.Encoder, path: Path) -> tuple[dict[str, float], int]:
    """Seconds of every part, measured one after another, and the number of tiles."""
    spent = {}
    start = time.perf_counter()
    slide = pathencoder.open_slide(path)
    spent["opening"] = time.perf_counter() - start
    start = time.perf_counter()
    plan = plan_of(encoder, slide)
    spent["tissue and grid"] = time.perf_counter() - start
    slide.close()
    spent["hash"] = timed(lambda: identify_slide(path))
    slide = pathencoder.open_slide(path)  # without what its cache holds
    start = time.perf_counter()
    tiles = read_all(encoder, slide, plan)
    spent["reading"] = time.perf_counter() - start
    slide.close()
    spent["network"] = timed(lambda: run_all(encoder.runner(stream.Settings()), tiles))
    spent["bare network"] = timed(lambda: run_all(bare_runner(encoder), tiles))
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / "slide.h5"
        spent["whole"] = timed(
            lambda: pathencoder.encode_slide(path, file, encoder=encoder, progress=False)
        )
    return spent, len(plan.grid.coords)


def main() -> None:
    """Print the parts, the ratio and the bar, and the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default=None)
    parser.add_argument("--mpp", type=float, default=0.5, help="of the slide")
    asked = parser.parse_args()
    encoder = pathencoder.load_encoder(asked.encoder, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        side = round(encoder.spec.input_size * (encoder.spec.reading_mpp or 0.5) / asked.mpp)
        path = write_slide(Path(folder) / "slide.tiff", asked.tiles, tile_px=side, mpp=asked.mpp)
        encoder.encode([np.zeros((256, 256, 3), np.uint8)] * 8, progress=False)
        found = [round_of(encoder, path) for _ in range(asked.rounds)]
    spent = {name: statistics.median(r[name] for r, _ in found) for name in PARTS}
    count = found[0][1]
    print(
        f"{encoder.spec.name}, {count} tiles, {torch.get_num_threads()} threads, median of"
        f" {asked.rounds} rounds"
    )
    print(f"{'':18}{'seconds':>9}{'tiles/s':>9}")
    for name in PARTS:
        rate = f"{count / spent[name]:9.1f}" if name in PARTS[:RATED] else ""
        print(f"{name:18}{spent[name]:9.3f}{rate}")
    ratios = [(r["network"] + r["reading"]) / r["whole"] for r, _ in found]
    ratio = statistics.median(ratios)
    reached = "reached" if ratio >= BAR else "not reached"
    print(
        f"share of 1/(1/network + 1/reading): {ratio:.3f} (>= {BAR}; rounds"
        f" {', '.join(f'{r:.3f}' for r in ratios)}): {reached}"
    )
    print(
        json.dumps(
            {
                "benchmark": "encode_slides",
                "encoder": encoder.spec.name,
                "tiles": count,
                "threads": torch.get_num_threads(),
                "bar": BAR,
                "ratio": round(ratio, 4),
                "seconds": {k: round(v, 4) for k, v in spent.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
