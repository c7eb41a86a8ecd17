"""Reading tiles: from 20, 376 and 20,000 shards, and what decoding costs the training thread.

    python -m tests.benchmarks.loader [--shards 20 376 20000] [--rounds 24] [--open-ms 1]
    python -m tests.benchmarks.loader s3 [--rounds 8] [--runs 8 16 32]
    python -m tests.benchmarks.loader threads [--threads 1 4 12] [--processes 1 4]

The first prints tiles per second and per CPU second through the loader (one decoding thread,
batches of 64) beside decoding the same tiles from memory; opened files and asked statuses per tile,
counted by wrapping os.open, io.open and os.stat in the process. Shards have 64 JPEG tiles of 224 px
and are hard links of one tar, so that they differ in nothing but their number. With --open-ms,
opening a shard takes that much longer, as on a network file system. Bar: 20,000 shards at 95 % of
the rate with 20.

Three rows decode the same 64 tiles in memory, a megabyte of the CPU's cache. "decoding alone" is
`decode_image`, whose pixels are dropped. "a bare loop" is the same into a batch, with two batches
before it in use, as during a step. "the loader's decoder" writes to such batches without Pillow
(training/data/jpeg_tiles.py). Bar: 95 % of decoding alone, local; 85 % from S3.

The second reads 128 shards from a loopback S3 (moto, in a process of its own, whose time is not
counted per CPU second but limits the tiles per second): single tiles, runs of neighbours, and from
a filled cache. A batch has no two tiles of one shard, so that no request serves two by chance.

Freed memory is kept, as in a run (pathencoder/allocator.py): page faults are not counted as
reading.

The third prints microseconds of one small operation, alone and with decoding threads or processes.
A training thread that feeds a GPU launches thousands of such operations a step. Each releases the
interpreter lock and has to acquire it again, in competition with the decoding threads.
"""

from __future__ import annotations

import argparse
import builtins
import io
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image

from pathencoder import allocator
from pathencoder.images import decode_image
from training.data import open_files
from training.data.corpus import open_corpus
from training.data.jpeg_tiles import decode_plain
from training.data.loader import batches
from training.data.open_files import OpenFiles, most_open
from training.data.sampler import Sampler, make_sampler
from training.data.shards import index_path, write_index
from training.data.tiles import Corpus
from training.data.window import in_window

OPERATIONS = 10_000
STEPS = 1_000_000  # more than are read
TILES, SIDE, BATCH = 64, 224, 64
# as object stores do, it keeps connections open; by default it would close each after an answer
MOTO = """
import sys
from moto.server import main
from werkzeug.serving import WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
main(sys.argv[1:])
"""
ALONE, LOOP, DECODER = "decoding alone", "a bare loop", "the loader's decoder"
S3_SHARDS = 128  # of a slide each, more than tiles of a batch


def jpeg(rng: np.random.Generator, side: int = SIDE) -> bytes:
    """A tile of smooth noise."""
    noise = Image.fromarray(rng.integers(0, 255, (side // 4, side // 4, 3), dtype=np.uint8))
    out = io.BytesIO()
    noise.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


def write_shards(folder: Path, count: int) -> list[bytes]:
    """A corpus of that many shards, one slide each; returns the tiles of a shard."""
    rng = np.random.default_rng(0)
    tiles = [jpeg(rng) for _ in range(TILES)]
    folder.mkdir()
    with tarfile.open(folder / "first", "w") as tar:
        for i, data in enumerate(tiles):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    index = write_index((folder / "first").rename(folder / "first.tar"))
    rows = ["slide,shard,first,tiles"]
    for s in range(count):
        shard = folder / f"{s // 1000:02}" / f"{s:05}.tar"
        shard.parent.mkdir(exist_ok=True)
        os.link(folder / "first.tar", shard)
        os.link(index, index_path(shard))
        rows.append(f"s{s:05},{shard.relative_to(folder)},0,{TILES}")
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    return tiles


@contextmanager
def counting(open_ms: float) -> Iterator[Counter[str]]:
    """Count opened files and asked statuses; opening a tar takes `open_ms` longer."""
    seen = Counter[str]()
    plain = (os.open, os.stat, io.open, builtins.open)

    def wrapped(name, act):
        def call(path, *args, **options):
            seen[name] += 1
            if name == "opens" and str(path).endswith(".tar"):
                time.sleep(open_ms / 1000)
            return act(path, *args, **options)

        return call

    os.open, os.stat = wrapped("opens", os.open), wrapped("stats", os.stat)
    io.open = builtins.open = wrapped("opens", io.open)
    try:
        yield seen
    finally:
        os.open, os.stat, io.open, builtins.open = plain


@dataclass
class Feed:
    """Batches of one corpus, a few at a time, and what they took; with its own open files."""

    corpus: Corpus
    sampler: Sampler
    open_ms: float = 0.0
    step: int = 0
    files: OpenFiles = field(default_factory=lambda: OpenFiles(most_open()))

    def take(self, steps: int) -> dict[str, float]:
        """Read the batches of the next steps."""
        open_files._FILES = self.files
        begun, cpu = time.perf_counter(), time.process_time()
        with counting(self.open_ms) as seen:
            feed = batches(
                self.corpus, self.sampler, canvas=SIDE, start=self.step, stop=self.step + steps
            )
            tiles = sum(len(batch.tiles) for _, batch in feed)
        self.step += steps
        return {
            "wall": (time.perf_counter() - begun) / tiles,
            "cpu": (time.process_time() - cpu) / tiles,
            "opens": seen["opens"] / tiles,
            "stats": seen["stats"] / tiles,
        }


def took(work: Callable[[], object], tiles: int) -> dict[str, float]:
    """The same for decoding so many tiles that are in memory."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall": (time.perf_counter() - begun) / tiles,
        "cpu": (time.process_time() - cpu) / tiles,
        "opens": 0.0,
        "stats": 0.0,
    }


def alone(tiles: list[bytes]) -> None:
    """Decode tiles and drop their pixels."""
    for data in tiles:
        decode_image(data, "tile")


def pillow(data: bytes, into: np.ndarray) -> None:
    """Decode a tile into a batch."""
    into[:] = decode_image(data, "tile")


def into_batches(tiles: list[bytes], steps: int, decode: Callable[..., object]) -> None:
    """Decode tiles into a batch at each step."""
    made = deque[torch.Tensor](maxlen=3)
    for _ in range(steps):
        batch = np.empty((TILES, SIDE, SIDE, 3), np.uint8)
        for data, into in zip(tiles, batch, strict=True):
            decode(data, into)
        made.append(torch.from_numpy(batch).permute(0, 3, 1, 2))


def table(folder: Path, shards: list[int], rounds: int, steps: int, open_ms: float) -> None:
    """Read in turn from every corpus; print medians over rounds, and one line of JSON."""
    feeds: dict[str, Feed] = {}
    for count in shards:
        tiles = write_shards(folder / str(count), count)
        begun = time.perf_counter()
        corpus = open_corpus(folder / str(count))
        first, begun = time.perf_counter() - begun, time.perf_counter()
        open_corpus(folder / str(count))
        again = time.perf_counter() - begun
        print(f"{count} shards: opened in {first:.2f} s, the second time in {again:.2f} s")
        whole = make_sampler(corpus, batch=BATCH, seed=0)
        windowed = in_window(whole, corpus, None)
        feeds[f"{count} shards"] = Feed(corpus, windowed)
        if windowed is not whole:
            feeds[f"{count} shards, no window"] = Feed(corpus, whole)
    if open_ms:
        feeds |= {
            f"{name}, opening +{open_ms:g} ms": Feed(feed.corpus, feed.sampler, open_ms)
            for name, feed in feeds.items()
        }
    for feed in feeds.values():  # the shards of a window are opened once, before anything is timed
        feed.take(2 * getattr(feed.sampler, "window", 0) // BATCH + 10)
    report(in_turn(tiles, feeds, rounds, steps), f"{shards[0]} shards")


def in_turn(
    tiles: list[bytes], feeds: dict[str, Feed], rounds: int, steps: int
) -> dict[str, list[dict[str, float]]]:
    """What the feeds took in each round, and what they are compared with."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (ALONE, LOOP, DECODER, *feeds)}
    for _ in range(rounds):
        count = steps * TILES
        found[ALONE].append(took(lambda: alone(tiles * steps), count))
        for name, decode in ((LOOP, pillow), (DECODER, decode_plain)):
            found[name].append(took(partial(into_batches, tiles, steps, decode), count))
        for name, feed in feeds.items():
            found[name].append(feed.take(steps))
    return found


@contextmanager
def s3_server() -> Iterator[str]:
    """A bucket of a moto server in another process; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", MOTO, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    try:
        for _ in range(600):
            with suppress(OSError), urlopen(Request(f"{address}/tiles", method="PUT")):
                break
            time.sleep(0.1)
        yield "s3://tiles"
    finally:
        server.terminate()
        server.wait()


def from_s3(folder: Path, rounds: int, steps: int, runs: list[int]) -> None:
    """Read shards from the disk and from a loopback S3; print as `table` does."""
    import obstore

    from pathencoder.remote.objects import store_of

    tiles = write_shards(folder / "local", S3_SHARDS)
    local = open_corpus(folder / "local")
    base = f"{S3_SHARDS} shards"
    feeds = {base: Feed(local, make_sampler(local, batch=BATCH, seed=0))}
    with s3_server() as url:
        for file in (folder / "local").rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                name = file.relative_to(folder / "local").as_posix()
                obstore.put(store_of(url), name, file.read_bytes())
        there = open_corpus(url)
        samplers = {
            f"runs of {run}" if run > 1 else "single tiles": make_sampler(
                there, batch=BATCH, seed=0, run=run
            )
            for run in (1, *runs)
        }
        feeds |= {f"loopback S3, {name}": Feed(there, s) for name, s in samplers.items()}
        os.environ["PATHENCODER_CACHE"] = str(folder / "cache")
        kept = open_corpus(url, cache_mb=500)
        for some in np.array_split(np.arange(len(kept)), S3_SHARDS):  # fill the cache
            kept.fetch(some.tolist())
        feeds["S3, from the cache, single tiles"] = Feed(kept, samplers["single tiles"])
        found = in_turn(tiles, feeds, rounds, steps)
    report(found, base)


def report(found: dict[str, list[dict[str, float]]], base: str) -> None:
    """Print the table: times are those of the fastest quarter of the rounds, counts of all."""
    print(
        f"{'':40} tiles/s  per CPU-s  of {base}  of decoding  of a bare loop  of its decoder"
        "  opens/tile  stats/tile"
    )
    out = {
        name: {
            key: fastest([r[key] for r in rows], len(rows) if key in ("opens", "stats") else None)
            for key in rows[0]
        }
        for name, rows in found.items()
    }
    for name, row in out.items():
        row["of_base"], row["of_decoding"], row["of_bare_loop"], row["of_decoder"] = (
            out[of]["cpu"] / row["cpu"] for of in (base, ALONE, LOOP, DECODER)
        )
        print(
            f"{name:40} {1 / row['wall']:7.0f}  {1 / row['cpu']:9.0f} "
            f" {row['of_base']:{len(base) + 3}.3f}  {row['of_decoding']:11.3f} "
            f" {row['of_bare_loop']:14.3f}  {row['of_decoder']:14.3f}"
            f"  {row['opens']:10.3f}  {row['stats']:10.3f}"
        )
    rounded = {name: {k: round(v, 6) for k, v in row.items()} for name, row in out.items()}
    print(json.dumps({"benchmark": "loader", "of": rounded}))


def fastest(values: list[float], count: int | None = None) -> float:
    """The mean of the smallest values, of a quarter of them by default."""
    return statistics.mean(sorted(values)[: count or max(1, len(values) // 4)])


def write_tiles(folder: Path, count: int = 64) -> Corpus:
    """JPEG tiles of 256 px in eight slides."""
    rng = np.random.default_rng(0)
    for i in range(count):
        (folder / f"s{i % 8}").mkdir(exist_ok=True)
        (folder / f"s{i % 8}" / f"{i}.jpg").write_bytes(jpeg(rng, 256))
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


def operations(folder: Path, threads: list[int], processes: list[int], rounds: int) -> None:
    """Print medians over rounds, and one line of JSON."""
    found: dict[str, list[float]] = {}
    corpus = write_tiles(folder)
    for _ in range(rounds):
        found.setdefault("alone", []).append(microseconds(torch.zeros(64)))
        for kind, counts in (("threads", threads), ("processes", processes)):
            for n in counts:
                found.setdefault(f"{kind} {n}", []).append(beside(corpus, **{kind: n}))
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    for name, value in medians.items():
        print(f"{name:12} {value:8.1f} us  {value / medians['alone']:6.1f} x")
    print(json.dumps({"benchmark": "loader", "torch": torch.__version__, "microseconds": medians}))


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", nargs="?", choices=["shards", "s3", "threads"], default="shards")
    parser.add_argument("--shards", type=int, nargs="+", default=[20, 376, 20_000])
    parser.add_argument("--steps", type=int, help="batches a round: 8, of S3 32")
    parser.add_argument("--runs", type=int, nargs="+", default=[8], help="tiles of S3 in a run")
    parser.add_argument("--open-ms", type=float, default=0.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    allocator.keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        if options.which == "threads":
            operations(Path(folder), options.threads, options.processes, options.rounds)
        elif options.which == "s3":
            from_s3(Path(folder), options.rounds, options.steps or 32, options.runs)
        else:
            steps = options.steps or 8
            table(Path(folder), options.shards, options.rounds, steps, options.open_ms)


if __name__ == "__main__":
    main()
