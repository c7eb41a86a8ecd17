"""The corpus of an archive: opening it, sampling, resuming.

    python -m tests.benchmarks.sampler [--slides 110000] [--tiles 1000000000] [--batch 1024]

A synthetic slides.csv of that size, with empty shards and sparse index files (no tile is read).
Printed: seconds to make the index of all shards, once; seconds to open the corpus with it and make
a sampler balanced by slide, organ and stain; the memory used; seconds to resume at a late step in a
new sampler, and whether its draws equal those of an uninterrupted sampler; milliseconds per draw.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from training.data.corpus import open_corpus
from training.data.sampler import make_sampler
from training.data.shards import index_path, index_start

ORGANS = (
    "breast",
    "colon",
    "kidney",
    "lung",
    "prostate",
    "skin",
    "stomach",
    "liver",
    "bladder",
    "uterus",
)
STAINS = ("he", "he", "he", "ihc", "special")
FAR = 1_234_567
BARS = {"set_up_s": 10.0, "memory_mb": 1000.0, "restore_s": 1.0}


def write_manifest(folder: Path, slides: int, tiles: int) -> None:
    """slides.csv whose slides differ in size by two orders of magnitude, eleven to a shard."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0, 1, slides)
    counts = np.maximum(1, (sizes / sizes.sum() * tiles)).astype(np.int64)
    counts[0] += tiles - counts.sum()
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                "slide",
                "shard",
                "first",
                "tiles",
                "patient",
                "stain_class",
                "organ",
                "licence",
                "split",
                "use",
            )
        )
        first = 0
        for s, count in enumerate(counts.tolist()):
            shard = f"shard-{s // 11:05d}.tar"
            writer.writerow(
                (
                    f"slide-{s:06d}",
                    shard,
                    first,
                    count,
                    f"p{s // 2}",
                    STAINS[s % 5],
                    ORGANS[s * 7 % 10],
                    "P",
                    "train",
                    "1",
                )
            )
            first += count
            if s % 11 == 10 or s == slides - 1:
                write_shard(folder / shard, first)
                first = 0


def write_shard(shard: Path, images: int) -> None:
    """An empty tar with an index of that many images."""
    shard.touch()
    with index_path(shard).open("wb") as file:
        file.truncate(file.write(index_start(shard, images)) + 16 * images)


def peak_mb() -> float:
    """Highest resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, batch: int) -> dict[str, float]:
    """Seconds and megabytes; raises AssertionError when a restored position draws other tiles."""
    before, start = peak_mb(), time.perf_counter()
    open_corpus(folder)
    index = time.perf_counter() - start
    start = time.perf_counter()
    corpus = open_corpus(folder)
    sampler = make_sampler(
        corpus, batch=batch, seed=0, slide_power=0.5, organ_power=0.5, stain_power=0.5
    )
    set_up = time.perf_counter() - start
    expected = [sampler.draw(step) for step in range(FAR, FAR + 20)]
    start = time.perf_counter()
    again = make_sampler(
        corpus, batch=batch, seed=0, slide_power=0.5, organ_power=0.5, stain_power=0.5
    )
    restored = [again.draw(FAR)]
    restore = time.perf_counter() - start
    start = time.perf_counter()
    restored += [again.draw(step) for step in range(FAR + 1, FAR + 20)]
    each = (time.perf_counter() - start) / 19
    assert all(np.array_equal(a, b) for a, b in zip(expected, restored, strict=True))
    drawn = np.concatenate(restored)
    assert drawn.max() < len(corpus)
    named = {corpus.tiles.key(int(i)) for i in drawn[:100]}
    assert len(named) == 100
    found = {
        "slides": len(corpus.slide_names),
        "tiles": len(corpus),
        "index_s": index,
        "set_up_s": set_up,
        "restore_s": restore,
        "draw_ms": 1000 * each,
    }
    return {**found, "memory_mb": peak_mb() - before, "process_mb": peak_mb()}


def main() -> None:
    """Print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=110_000)
    parser.add_argument("--tiles", type=int, default=1_000_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), asked.slides, asked.tiles)
        found = measure(Path(folder), asked.batch)
    print(f"{found['slides']:,} slides, {found['tiles']:,} tiles, batches of {asked.batch:,}")
    for name, unit in (
        ("index_s", "s"),
        ("set_up_s", "s"),
        ("restore_s", "s"),
        ("draw_ms", "ms"),
        ("memory_mb", "MB"),
        ("process_mb", "MB"),
    ):
        bar = f"  (bar: {BARS[name]:g} {unit})" if name in BARS else ""
        print(f"{name.rsplit('_', 1)[0]:10} {found[name]:10.2f} {unit}{bar}")
    print(json.dumps({k: round(v, 3) for k, v in found.items()}))


if __name__ == "__main__":
    main()
