r"""Tiles per second of whole training steps, with loading and augmentation: ours and lightly's.

    python -m tests.benchmarks.train_step [--methods dino simclr byol] \
        [--networks mobilenetv2_100 resnet18 vit_tiny_patch16_224]
    python -m tests.benchmarks.train_step --device cuda  # ViT-S/16, 2 x 224 + 8 x 96 px, bf16

Both sides train the same timm network on the same JPEG tiles, with the same crops, batch, head
sizes and worker count, each in a separate process that stays warm. In each round they take a few
steps in turn while the others wait. Ratios are medians over rounds of the ratio inside a round.
Sides:

    bare      ours in float32 and torch's default layout; freed memory is returned (glibc's default)
    lightly   lightly as its documentation shows: the same precision, layout and allocator
    plain     ours as bare, freed memory kept (pathencoder/allocator.py), as in all our runs
    kept      lightly, freed memory kept
    ours      our defaults: channels_last, freed memory kept, and bf16 where it is faster
    tuned     lightly with all of these, to show their share of the difference
    fp32      our defaults except for the precision

--clock wall: elapsed time. --clock cpu: CPU time of the training process alone, for a shared
machine; it leaves out the processes of lightly's loader and includes the threads of ours, so it
favours lightly.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pathencoder import allocator
from pathencoder.images import list_images, open_image
from tests.benchmarks.train_step_sides import Case, lightly, ours


@dataclass(frozen=True)
class Side:
    """A library; whether it gets our layout and precision; whether freed memory is kept."""

    steps: Callable[..., Generator[float, None, None]]
    defaults: bool
    keeps: bool
    fp32: bool = False


SIDES = {
    "bare": Side(ours, defaults=False, keeps=False),
    "lightly": Side(lightly, defaults=False, keeps=False),
    "plain": Side(ours, defaults=False, keeps=True),
    "kept": Side(lightly, defaults=False, keeps=True),
    "ours": Side(ours, defaults=True, keeps=True),
    "tuned": Side(lightly, defaults=True, keeps=True),
    "fp32": Side(ours, defaults=True, keeps=True, fp32=True),
}
RATIOS = {
    "same": ("bare", "lightly"),
    "same_kept": ("plain", "kept"),
    "as_run": ("plain", "lightly"),
    "defaults": ("ours", "lightly"),
    "to_tuned": ("ours", "tuned"),
    "in_fp32": ("fp32", "lightly"),
}
NETWORKS = ("mobilenetv2_100", "resnet18", "vit_tiny_patch16_224")
BARS = {"same": 1.0, "defaults": 1.5, "wait": 0.05, "cuda images/s": 1500}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiles"


@dataclass(frozen=True)
class Turn:
    """Seconds of one side's steps: elapsed, CPU of its main process, waiting for data."""

    wall: float
    cpu: float
    waited: float


def serve(link: Connection, case: Case, side: str, threads: int) -> None:
    """Run in a child process: take the number of steps received, and answer with a Turn."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    if SIDES[side].keeps:
        allocator.keep_freed_memory()
    chosen = SIDES[side]
    steps = chosen.steps(case, defaults=chosen.defaults, fp32=chosen.fp32)
    while count := link.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        waited = sum(next(steps) for _ in range(count))
        if case.device == "cuda":
            torch.cuda.synchronize()
        link.send(Turn(time.perf_counter() - wall, time.process_time() - cpu, waited))
    steps.close()


@dataclass(frozen=True)
class Measured:
    """One side in all rounds: tiles per second, and the share of time spent waiting for data."""

    rates: list[float]
    waits: list[float]


def measure(case: Case, sides: list[str], options: argparse.Namespace) -> dict[str, Measured]:
    """Rounds in turn, each side warm before the first."""
    found = {side: Measured([], []) for side in sides}
    with processes(case, sides, options.threads) as links:
        for link in links.values():
            _ask(link, options.warm)
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                turn = _ask(links[side], options.steps)
                found[side].rates.append(
                    options.steps * case.batch / (turn.cpu if options.clock == "cpu" else turn.wall)
                )
                found[side].waits.append(turn.waited / turn.wall)
    return found


def _ask(link: Connection, count: int) -> Turn:
    link.send(count)
    answer: Turn = link.recv()
    return answer


@contextmanager
def processes(case: Case, sides: list[str], threads: int) -> Iterator[dict[str, Connection]]:
    """One spawned process a side."""
    spawn, links, started = multiprocessing.get_context("spawn"), {}, []
    for side in sides:
        links[side], theirs = spawn.Pipe()
        own = Case(**{**case.__dict__, "out": case.out / side})
        started.append(spawn.Process(target=serve, args=(theirs, own, side, threads)))
        started[-1].start()
        theirs.close()  # or a side that died would be waited for
    try:
        yield links
    finally:
        for link in links.values():
            with suppress(OSError):
                link.send(0)
        for process in started:
            process.join()


def write_tiles(folder: Path, count: int) -> tuple[Path, Path]:
    """The same JPEG tiles of 256 px twice.

    In a tar shard with a manifest that calls them H&E, and as files.
    """
    found = [
        p
        for name in ("hpylori_ihc", "crc_polyp5")
        for p in (list_images(SHARED / name) if (SHARED / name).is_dir() else [])
    ]
    shards, images = folder / "shards", folder / "images" / "all"
    shards.mkdir(), images.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    rows = ["key,shard,stain_class,slide"]
    with tarfile.open(shards / "tiles-000.tar", "w") as tar:
        for i in range(count):
            if found:
                tile = Image.fromarray(open_image(found[i % len(found)])).resize((256, 256))
            else:
                tile = Image.fromarray(
                    torch.randint(60, 250, (48, 48, 3), generator=rng).byte().numpy()
                ).resize((256, 256), 3)
            tile.save(images / f"t{i}.jpg", quality=90)
            tar.add(images / f"t{i}.jpg", f"t{i}.jpg")
            rows.append(f"t{i},tiles-000.tar,he,s{i % 97}")
    (shards / "manifest.csv").write_text("\n".join(rows) + "\n")
    return shards, folder / "images"


def cases(options: argparse.Namespace, shards: Path, images: Path, out: Path) -> Iterator[Case]:
    """The CPU's nine, or the one of the GPU."""
    shared = {
        "batch": options.batch,
        "workers": options.workers,
        "device": options.device,
        "shards": shards,
        "images": images,
    }
    if options.device == "cuda":
        args = {"dynamic_img_size": True}
        yield Case(
            "dino",
            "vit_small_patch16_224",
            args,
            px=224,
            local_px=96,
            locals_=8,
            out=out / "cuda",
            **shared,
        )
        return
    for method in options.methods:
        for network in options.networks:
            args = {"img_size": 96, "dynamic_img_size": True} if "vit" in network else {}
            yield Case(
                method,
                network,
                args,
                px=96,
                local_px=48,
                locals_=4,
                out=out / f"{method}-{network}",
                **shared,
            )


def summarise(found: dict[str, Measured]) -> dict[str, float]:
    """Median rates; the ratios with their limits; our share of waiting."""
    row = {side: statistics.median(m.rates) for side, m in found.items()}
    for name, (a, b) in RATIOS.items():
        if a in found and b in found:
            row[name] = statistics.median(
                x / y for x, y in zip(found[a].rates, found[b].rates, strict=True)
            )
    if "ours" in found:
        row["wait"] = statistics.median(found["ours"].waits)
    return {k: round(v, 3) for k, v in row.items()}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", nargs="+", default=["dino", "simclr", "byol"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--tiles", type=int, default=512)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm", type=int, default=2, help="steps before the first round")
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.batch = options.batch or (256 if on_gpu else 32)
    options.workers = options.workers if options.workers is not None else (12 if on_gpu else 1)
    return options


def main() -> None:
    """Print a table and one line of JSON."""
    options = parsed()
    results: list[dict[str, Any]] = []
    print(f"{'tiles/s':8} {'network':22} " + " ".join(f"{s:>9}" for s in (*SIDES, *RATIOS, "wait")))
    with tempfile.TemporaryDirectory() as folder:
        shards, images = write_tiles(Path(folder), options.tiles)
        for case in cases(options, shards, images, Path(folder) / "runs"):
            row = summarise(measure(case, options.sides, options))
            figures = [row.get(k, float("nan")) for k in (*SIDES, *RATIOS, "wait")]
            print(
                f"{case.method:8} {case.architecture:22} " + " ".join(f"{v:9.2f}" for v in figures),
                flush=True,
            )
            results.append({"method": case.method, "network": case.architecture, **row})
    about = {
        "batch": options.batch,
        "workers": options.workers,
        "threads": options.threads,
        "device": options.device,
        "clock": options.clock,
    }
    print(
        json.dumps(
            {
                "benchmark": "train_step",
                **about,
                "torch": torch.__version__,
                "bars": BARS,
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
