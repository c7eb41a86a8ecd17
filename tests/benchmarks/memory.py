"""The memory use of `stream` and `encode` over many tiles.

    python -m tests.benchmarks.memory [--tiles 20000] [--files 500] [--encoder NAME]

JPEG tiles of 256 px are written once and read repeatedly. Printed: the process's resident memory
after 1,000 tiles and at the end, for `stream` and, with its table of rows, for `encode`. The
limit is 300 MB between the two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import pathencoder

BAR_MB = 300
FIRST = 1000


def resident_mb() -> float:
    """Resident memory now; outside Linux, the highest so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource  # not on Windows

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (1e6 if sys.platform == "darwin" else 1e3)


def write_tiles(folder: Path, count: int) -> list[Path]:
    """Tiles as different from one another as real ones."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).resize((256, 256)).save(
            path, quality=90
        )
    return paths


def watched(paths: list[Path], count: int, marks: dict[str, float]) -> Iterator[Path]:
    """The paths repeatedly; records the memory after the first thousand."""
    for i, path in enumerate(itertools.islice(itertools.cycle(paths), count)):
        if i == min(FIRST, count // 2):
            marks["start"] = resident_mb()
        yield path
    marks["end"] = resident_mb()


def main() -> None:
    """Print the table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--encoder", default=None)
    options = parser.parse_args()
    encoder = pathencoder.load_encoder(options.encoder, device="cpu")
    summary: dict[str, object] = {
        "benchmark": "memory",
        "encoder": encoder.spec.name,
        "tiles": options.tiles,
        "bar_mb": BAR_MB,
    }
    print(
        f"{'MB':8} {'after ' + str(min(FIRST, options.tiles // 2)):>12} {'at the end':>12}"
        f" {'grown by':>12}"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = write_tiles(Path(folder), options.files)
        for name in ("stream", "encode"):
            marks: dict[str, float] = {}
            tiles = watched(paths, options.tiles, marks)
            if name == "stream":
                for _ in encoder.stream(tiles, progress=False):
                    pass
            else:
                encoder.encode(tiles, progress=False)
            grown = marks["end"] - marks["start"]
            print(f"{name:8} {marks['start']:12.1f} {marks['end']:12.1f} {grown:12.1f}")
            summary[name] = {k: round(v, 1) for k, v in {**marks, "grown_mb": grown}.items()}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
