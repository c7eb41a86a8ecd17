"""Packing slides into shards, beside what it cannot avoid; and its memory over many slides.

    python -m tests.benchmarks.pack [--slides ../shared/data/slides] [--rounds 3]
    python -m tests.benchmarks.pack memory [--count 1000]
    python -m tests.benchmarks.pack codecs [--tiles 200]

The first measures, in CPU seconds of one process: opening, tissue and grid; reading the chosen
tiles; compressing them; and `pack` of the same slides, which also chooses, measures and hashes
tiles, writes, syncs, reads again and makes tables. Bar: the three together are at least 85 % of
`pack`. Wall seconds of `pack` with two processes are printed beside.

The second packs slides of which each is a small file of its own, in groups of 50, and prints the
resident memory after each hundred. Bar: after the first 100 slides it grows by less than 5 %.

The third compares JPEG and WebP: bytes of a tile, CPU time to write and to read one, and how far
the default encoder's embedding moves (1 - cosine, mean and largest).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.images import decode_image
from pathencoder.slides.grid import plan_grid, read_tile
from pathencoder.slides.reader import open_slide
from pathencoder.slides.tissue import find_tissue
from tests.support.paths import ROOT
from training.archive.build import Options, build
from training.archive.pack.choose import choose
from training.archive.pack.run import Packed, Where, pack
from training.archive.pack.settings import Settings, encoded
from training.archive.row import Row
from training.archive.rows import Defaults
from training.archive.sources.folder import Folder
from training.archive.store import read_manifest

SLIDES = ROOT.parent / "shared" / "data" / "slides"
REAL = (
    "CMU-1-Small-Region.svs",
    "OS-2_Ki67_hamamatsu_mpp0.227_pyramid.tiff",
    "OS-2_Ki67_olympus_mpp0.346_pyramid.tiff",
    "CMU-1-Small-Region_pyramid_mpp0.499.tiff",
)
BAR = 0.85
CODECS = [("jpeg", q) for q in (75, 80, 85, 90, 95)] + [("webp", q) for q in (75, 80, 85, 90)]


def manifest_of(folder: Path, out: Path) -> list[Row]:
    """The rows of a folder's manifest."""
    build([Folder(folder)], out, Options(defaults=Defaults("he", "", "P"), processes=1, look=False))
    return read_manifest(out).rows


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """What an action returns, and its CPU seconds."""
    begun = time.process_time()
    return act(), time.process_time() - begun


def parts(paths: list[Path], settings: Settings) -> dict[str, float]:
    """CPU seconds of what packing cannot avoid, slide by slide."""
    spent = {"tissue": 0.0, "read": 0.0, "encode": 0.0}
    for path in paths:

        def planned(path: Path = path) -> Any:
            slide = open_slide(path)
            mpp = slide.mpp().value
            tissue = find_tissue(slide, mpp)
            grid = plan_grid(
                tissue, slide.bounds, mpp=mpp, target_mpp=0.5, tile_px=settings.tile_px
            )
            return slide, tissue, grid

        (slide, tissue, grid), seconds = timed(planned)
        spent["tissue"] += seconds
        which, _ = choose(tissue, grid.coords, grid.side, settings.tiles, path.name)
        corners = grid.coords[which].tolist()
        tiles, seconds = timed(lambda: [read_tile(slide, grid, x, y) for x, y in corners])  # noqa: B023
        spent["read"] += seconds
        _, seconds = timed(lambda: [encoded(tile, settings) for tile in tiles])  # noqa: B023
        spent["encode"] += seconds
        slide.close()
    return spent


def packing(given: argparse.Namespace) -> None:
    """The first table."""
    settings = Settings(tiles=0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "slides").mkdir()
        for copy in range(given.copies):
            for file in REAL:
                (found,) = given.slides.rglob(file)
                shutil.copy(found, root / "slides" / f"{copy}-{file}")
        # behind the image: copies with the same bytes would be one slide
        for number, path in enumerate(sorted((root / "slides").iterdir())):
            with path.open("ab") as stream:
                stream.write(number.to_bytes(4, "little"))
        rows = manifest_of(root / "slides", root / "m.parquet")
        paths = sorted((root / "slides").iterdir())
        found: list[dict[str, float]] = []
        for number in range(given.rounds):
            spent = parts(paths, settings)
            out = root / f"shards{number}"
            packed, spent["pack"] = timed(
                lambda: pack(rows, out, settings, slides=root, where=Where(0))  # noqa: B023
            )
            found.append(spent)
        many = dataclasses.replace(settings, shard_mb=1.0)
        begun = time.perf_counter()
        pack(rows, root / "two", many, slides=root, where=Where(2))
        wall = time.perf_counter() - begun
    best = min(found, key=lambda row: row["pack"] / sum_of_parts(row))
    row = {key: statistics.median(r[key] for r in found) for key in found[0]}
    ratio = statistics.median(sum_of_parts(r) / r["pack"] for r in found)
    tiles = packed.tables.tiles
    print(f"{packed.tables.slides} slides, {tiles} tiles, {given.rounds} rounds, medians")
    for key, seconds in row.items():
        print(f"{key:10s}{seconds:8.2f} CPU-s {1e3 * seconds / tiles:8.2f} ms a tile")
    print(f"the three parts are {ratio:.1%} of pack (bar: {BAR:.0%})")
    print(f"pack with two processes: {wall:.1f} s of wall time, {tiles / wall:.0f} tiles a second")
    figures = {"benchmark": "pack", "tiles": tiles, **{k: round(v, 3) for k, v in row.items()}}
    figures |= {"ratio": round(ratio, 3), "best": round(sum_of_parts(best) / best["pack"], 3)}
    print(json.dumps(figures | {"bar": BAR}))


def sum_of_parts(row: dict[str, float]) -> float:
    """CPU seconds of the three parts."""
    return row["tissue"] + row["read"] + row["encode"]


def resident() -> float:
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(given: argparse.Namespace) -> None:
    """The second table."""
    from tests.support.small_slides import section, write_tiff

    settings = Settings(tiles=4, tile_px=64, shard_mb=50 * 4 * 64 * 64 * 0.26 / 1e6)
    seen: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "slides").mkdir()
        data = write_tiff(root / "one.tif", section(640, 512), mpp=0.5).read_bytes()
        for number in range(given.count):
            place = root / "slides" / f"{number:06d}.tif"
            place.write_bytes(data + number.to_bytes(4, "little"))
        rows = manifest_of(root / "slides", root / "m.parquet")
        begun = time.process_time()
        for share in range(1, given.count // 100 + 1):
            found: Packed = pack(
                rows, root / "s", settings, slides=root, where=Where(0, (share, given.count // 100))
            )
            seen.append(resident())
            print(f"{100 * share:6d} slides {seen[-1]:8.1f} MB resident")
        seconds = time.process_time() - begun
    growth = seen[-1] / seen[0] - 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{found.tables.slides} slides, {seconds:.1f} CPU-s, peak {peak:.0f} MB")
    print(json.dumps({"benchmark": "pack memory", "slides": found.tables.slides,
                      "growth": round(growth, 4), "peak_mb": round(peak)}))  # fmt: skip


def tiles_of(count: int) -> list[np.ndarray]:
    """Tiles of real slides, resampled from a finer scale, so that no JPEG grid is left in them."""
    out = []
    for file, mpp in ((REAL[1], 0.5), (REAL[2], 0.5), (REAL[0], 0.75)):
        (path,) = SLIDES.rglob(file)
        slide = open_slide(path)
        own = slide.mpp().value
        grid = plan_grid(
            find_tissue(slide, own), slide.bounds, mpp=own, target_mpp=mpp, tile_px=256,
            overlap_px=192,
        )  # fmt: skip
        chosen = np.linspace(0, len(grid.coords) - 1, min(count // 3, len(grid.coords))).astype(int)
        out += [read_tile(slide, grid, x, y) for x, y in grid.coords[chosen].tolist()]
    return out


def codecs(given: argparse.Namespace) -> None:
    """The third table."""
    import pathencoder

    tiles = tiles_of(given.tiles)
    encoder = pathencoder.load_encoder()
    plain = encoder.encode(tiles, progress=False)
    rows = {}
    print(f"{len(tiles)} tiles of 256 px; the encoder's own size is {encoder.spec.input_size} px")
    print(
        f"{'codec':12s}{'KB':>7s}{'write ms':>10s}{'read ms':>9s}{'1-cos mean':>12s}{'most':>10s}"
    )
    for codec, quality in CODECS:
        settings = Settings(codec=codec, quality=quality)
        data, wrote = timed(lambda: [encoded(tile, settings) for tile in tiles])  # noqa: B023
        again, read = timed(lambda: [decode_image(item, "tile") for item in data])  # noqa: B023
        moved = 1 - cosine(plain, encoder.encode(again, progress=False))
        row = {
            "kb": sum(map(len, data)) / len(data) / 1e3,
            "write_ms": 1e3 * wrote / len(data),
            "read_ms": 1e3 * read / len(data),
            "mean": float(moved.mean()),
            "most": float(moved.max()),
        }
        rows[f"{codec} {quality}"] = {key: round(value, 6) for key, value in row.items()}
        print(
            f"{codec} {quality:<6d}{row['kb']:7.1f}{row['write_ms']:10.2f}{row['read_ms']:9.2f}"
            f"{row['mean']:12.5f}{row['most']:10.5f}"
        )
    print(json.dumps({"benchmark": "pack codecs", "of": rows}))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of rows."""
    products = (a * b).sum(1)
    found: np.ndarray = products / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", choices=("memory", "codecs"))
    parser.add_argument("--slides", type=Path, default=SLIDES)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--tiles", type=int, default=90)
    given = parser.parse_args()
    {"memory": memory, "codecs": codecs, None: packing}[given.table](given)


if __name__ == "__main__":
    main()
