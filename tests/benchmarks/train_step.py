"""Tiles a second of whole training steps, loading and augmentation included, ours against lightly's, side by side.

    python tests/benchmarks/train_step.py [--methods dino simclr byol] [--networks mobilenetv2_100 resnet18 vit_tiny_patch16_224]
    python tests/benchmarks/train_step.py --device cuda     # ViT-S/16, 2 x 224 + 8 x 96 px, bf16, from shards

Both sides train the same timm network on the same JPEG tiles, with crops, batch, head sizes and worker count alike, each in a process of
its own that stays warm; in each round they do a few steps in turn while the others wait. Ratios are medians over rounds of the ratio
inside a round. Sides:

    plain     ours, float32, torch's own layout, memory given back as glibc does
    lightly   lightly as its documentation shows: the same precision and layout
    ours      our defaults: channels_last, bf16 where the hardware gains from it, freed memory kept (training/allocator.py)
    tuned     lightly given all three of those, to show what of the difference they are
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from train_step_sides import Case, lightly, ours

from pathencoder.images import list_images, open_image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # training/ is not installed
from training import allocator

SIDES = {"plain": (ours, False), "lightly": (lightly, False), "ours": (ours, True), "tuned": (lightly, True)}
NETWORKS = ("mobilenetv2_100", "resnet18", "vit_tiny_patch16_224")
BARS = {"same": 1.0, "defaults": 1.5, "wait": 0.05, "cuda images/s": 1500}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiles"


def serve(link: Connection, case: Case, side: str, threads: int) -> None:
    """In a process of its own: does as many steps as it is told to and answers (seconds, of them waiting for data)."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    library, defaults = SIDES[side]
    if defaults:
        allocator.keep_freed_memory()
    steps = library(case, defaults=defaults)
    while count := link.recv():
        start = time.perf_counter()
        waited = sum(next(steps) for _ in range(count))
        if case.device == "cuda":
            torch.cuda.synchronize()
        link.send((time.perf_counter() - start, waited))
    steps.close()


@dataclass(frozen=True)
class Measured:
    """One side in all rounds: tiles a second, and the share of the time that went into waiting for data."""

    rates: list[float]
    waits: list[float]


def measure(case: Case, sides: list[str], options: argparse.Namespace) -> dict[str, Measured]:
    """Rounds in turn, each side warm before the first."""
    found = {side: Measured([], []) for side in sides}
    with processes(case, sides, options.threads) as links:
        for link in links.values():
            _ask(link, options.warm)
        for turn in range(options.rounds):
            for side in sides if turn % 2 == 0 else reversed(sides):
                seconds, waited = _ask(links[side], options.steps)
                found[side].rates.append(options.steps * case.batch / seconds)
                found[side].waits.append(waited / seconds)
    return found


def _ask(link: Connection, count: int) -> tuple[float, float]:
    link.send(count)
    answer: tuple[float, float] = link.recv()
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
    """The same JPEG tiles of 256 px twice: in a tar shard with a manifest that calls them H&E, and as files."""
    found = [p for name in ("hpylori_ihc", "crc_polyp5") for p in (list_images(SHARED / name) if (SHARED / name).is_dir() else [])]
    shards, images = folder / "shards", folder / "images" / "all"
    shards.mkdir(), images.mkdir(parents=True)
    rng = torch.Generator().manual_seed(0)
    rows = ["key,shard,stain_class,slide"]
    with tarfile.open(shards / "tiles-000.tar", "w") as tar:
        for i in range(count):
            if found:
                tile = Image.fromarray(open_image(found[i % len(found)])).resize((256, 256))
            else:
                tile = Image.fromarray(torch.randint(60, 250, (48, 48, 3), generator=rng).byte().numpy()).resize((256, 256), 3)
            tile.save(images / f"t{i}.jpg", quality=90)
            tar.add(images / f"t{i}.jpg", f"t{i}.jpg")
            rows.append(f"t{i},tiles-000.tar,he,s{i % 97}")
    (shards / "manifest.csv").write_text("\n".join(rows) + "\n")
    return shards, folder / "images"


def cases(options: argparse.Namespace, shards: Path, images: Path, out: Path) -> Iterator[Case]:
    """The CPU's nine, or the one of the GPU."""
    shared = {"batch": options.batch, "workers": options.workers, "device": options.device, "shards": shards, "images": images}
    if options.device == "cuda":
        args = {"dynamic_img_size": True}
        yield Case("dino", "vit_small_patch16_224", args, px=224, local_px=96, locals_=8, out=out / "cuda", **shared)
        return
    for method in options.methods:
        for network in options.networks:
            args = {"img_size": 96, "dynamic_img_size": True} if "vit" in network else {}
            yield Case(method, network, args, px=96, local_px=48, locals_=4, out=out / f"{method}-{network}", **shared)


def summarise(found: dict[str, Measured]) -> dict[str, float]:
    """Median rates; the ratios that the bars are for; ours' share of waiting."""
    row = {side: statistics.median(m.rates) for side, m in found.items()}
    pairs = {"same": ("plain", "lightly"), "defaults": ("ours", "lightly"), "tuned_ratio": ("ours", "tuned")}
    for name, (a, b) in pairs.items():
        if a in found and b in found:
            row[name] = statistics.median(x / y for x, y in zip(found[a].rates, found[b].rates, strict=True))
    row["wait"] = statistics.median(found["ours"].waits)
    return {k: round(v, 3) for k, v in row.items()}


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--methods", nargs="+", default=["dino", "simclr", "byol"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
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
    print(f"{'tiles/s':8} {'network':22} " + " ".join(f"{s:>8}" for s in (*SIDES, "same", "defaults", "to tuned", "wait")))
    with tempfile.TemporaryDirectory() as folder:
        shards, images = write_tiles(Path(folder), options.tiles)
        for case in cases(options, shards, images, Path(folder) / "runs"):
            row = summarise(measure(case, options.sides, options))
            figures = [row.get(k, float("nan")) for k in (*SIDES, "same", "defaults", "tuned_ratio", "wait")]
            print(f"{case.method:8} {case.architecture:22} " + " ".join(f"{v:8.2f}" for v in figures), flush=True)
            results.append({"method": case.method, "network": case.architecture, **row})
    about = {"batch": options.batch, "workers": options.workers, "threads": options.threads, "device": options.device}
    print(json.dumps({"benchmark": "train_step", **about, "torch": torch.__version__, "bars": BARS, "results": results}))


if __name__ == "__main__":
    sys.exit(main())
