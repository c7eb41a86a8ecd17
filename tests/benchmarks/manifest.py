"""The manifest of an archive of 110,000 slides with made-up headers.

python -m tests.benchmarks.manifest [--slides 110000] [--processes 2] [--no-hash]

Each slide is a small pyramidal TIFF of its own with the header of an Aperio scan, in folders of
1,000; names state the stain of most of them. Reported: the first run (headers, sha256), a second
run, a run after 1 % of the slides changed, and reading the manifest; beside them the time to open
one slide, which no manifest can avoid.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from pathencoder.slides.reader import open_slide
from training.archive.build import Options, build
from training.archive.sources.folder import Folder
from training.archive.store import csv_of, read_manifest

_NAMES = ("HE", "HE", "HE", "Ki67", "CD3", "PAS")
_OPENED = 300  # slides that are opened one by one, for comparison


def header(mpp: float) -> bytes:
    """A small slide with the header of an Aperio scan."""
    import tifffile

    text = f"Aperio Image Library v12\n512x512 [0,0 512x512] |AppMag = {10 / mpp:.0f}|MPP = {mpp}"
    pixels = np.full((512, 512, 3), 240, np.uint8)
    pixels[100:400, 100:400] = (190, 120, 170)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.svs"
        with tifffile.TiffWriter(path) as file:
            for step in (1, 4):
                file.write(
                    pixels[::step, ::step],
                    tile=(256, 256),
                    photometric="rgb",
                    compression="zlib",
                    description=text,
                    metadata=None,
                )
        return path.read_bytes()


def make_archive(root: Path, slides: int) -> None:
    """Write the slides, each a file of its own."""
    headers = [header(mpp) for mpp in (0.2525, 0.5, 0.2628)]
    for i in range(slides):
        folder = root / f"{i // 1000:03d}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        name = f"case{i // 3:06d}_{i % 3}_{_NAMES[i % len(_NAMES)]}.svs"
        # a byte behind the last page makes each file another one
        (folder / name).write_bytes(headers[i % 3] + i.to_bytes(4, "little"))


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, who))


def timed(title: str, root: Path, out: Path, options: Options) -> tuple[float, float]:
    """Wall and CPU seconds of a run, which are printed."""
    start, cpu = time.perf_counter(), cpu_seconds()
    measured = build([Folder(root)], out, options).measured
    wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    click.echo(f"{title:24s}{wall:9.1f} s {cpu:9.1f} CPU-s   {measured:,} slides read")
    return wall, cpu


def opening(root: Path) -> float:
    """CPU seconds to open a slide and read its scale, in this process."""
    paths = sorted((root / "000").iterdir())[:_OPENED]
    start = time.process_time()
    for path in paths:
        slide = open_slide(path)
        slide.mpp()
        slide.close()
    return (time.process_time() - start) / len(paths)


@click.command(help=__doc__)
@click.option("--slides", default=110_000, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--hash/--no-hash", "hashed", default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write the slides.")
def main(slides: int, processes: int, hashed: bool, folder: Path | None) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root, out = Path(name) / "archive", Path(name) / "manifest.parquet"
        make_archive(root, slides)
        options = Options(processes=processes, hashed=hashed)
        one = opening(root)
        click.echo(f"{slides:,} slides, {processes} processes, {os.cpu_count()} cores")
        click.echo(f"open one slide          {one * 1e3:9.2f} CPU-ms")
        first, first_cpu = timed("first run", root, out, options)
        before = out.read_bytes()
        again, again_cpu = timed("the same again", root, out, options)
        same = out.read_bytes() == before
        for path in sorted(root.rglob("*.svs"))[::100]:
            os.utime(path)
        timed("after 1 % changed", root, out, options)
        start = time.perf_counter()
        rows = read_manifest(out).rows
        reading = time.perf_counter() - start
        sizes = out.stat().st_size / 1e6, csv_of(out).stat().st_size / 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"read the manifest       {reading:9.1f} s   {len(rows):,} rows")
    click.echo(f"Parquet, CSV            {sizes[0]:9.1f} MB, {sizes[1]:.1f} MB")
    click.echo(f"memory of the process   {memory:9.0f} MB")
    figures = {
        "slides": slides,
        "first_s_per_110000": round(first * 110_000 / slides, 1),
        "first_cpu_s_per_110000": round(first_cpu * 110_000 / slides, 1),
        "again_s_per_110000": round(again * 110_000 / slides, 1),
        "again_over_first_cpu": round(again_cpu / first_cpu, 3),
        "first_over_opening_cpu": round(first_cpu / (one * slides), 2),
        "same_bytes": same,
        "memory_mb": round(memory),
    }
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
