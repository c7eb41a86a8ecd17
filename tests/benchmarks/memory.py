"""The memory use over many tiles, over one large slide, and over many slides.

    python -m tests.benchmarks.memory [--only tiles|slide|slides]

tiles [--tiles 20000] [--files 500] [--encoder NAME]: JPEG tiles of 256 px are written once and
read repeatedly. Printed: the process's resident memory after 1,000 tiles and at the end, for
`stream` and, with its table of rows, for `encode`. The limit is 300 MB between the two.

slide [--slide-tiles 100000] and slides [--slides 200]: `pathencoder encode` on one slide of many
tiles, and on many slides of about a hundred, in a process of its own. The network is a very small
one that takes tiles of 64 px, so that it takes minutes. Printed: the highest resident memory until
a tenth of the work was done (the second half of that tenth: the start has a peak of its own), and
from there to the end. The limit is 10 % between the two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import pathencoder
from tests.support import small_encoders
from tests.support.big_slides import write_slide
from tests.support.paths import ROOT
from tests.support.watched import Watched, watch

BAR_MB = 300
BAR_GROWTH = 1.1
FIRST = 1000
KINDS = ("tiles", "slide", "slides")


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


def many_tiles(asked: argparse.Namespace) -> dict[str, object]:
    """`stream` and `encode` over tiles."""
    encoder = pathencoder.load_encoder(asked.encoder, device="cpu")
    found: dict[str, object] = {"encoder": encoder.spec.name, "tiles": asked.tiles}
    first = min(FIRST, asked.tiles // 2)
    print(f"{'MB':16} {f'after {first}':>12} {'at the end':>12} {'grown by':>12}")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_tiles(Path(folder), asked.files)
        for name in ("stream", "encode"):
            marks: dict[str, float] = {}
            tiles = watched(paths, asked.tiles, marks)
            if name == "stream":
                for _ in encoder.stream(tiles, progress=False):
                    pass
            else:
                encoder.encode(tiles, progress=False)
            grown = marks["end"] - marks["start"]
            print(f"{name:16} {marks['start']:12.1f} {marks['end']:12.1f} {grown:12.1f}")
            say(f"grown by at most {BAR_MB} MB", grown <= BAR_MB)
            found[name] = {k: round(v, 1) for k, v in {**marks, "grown_mb": grown}.items()}
    return found


def one_slide(folder: Path, count: int) -> tuple[list[Path], Callable[[], float]]:
    """A slide of many tiles; the bytes of the journal tell how far its encoding is."""
    slide = write_slide(folder / "slide.tiff", count, tile_px=small_encoders.SIZE)
    journal = folder / "out" / ".slide.h5.partial"
    return [slide], lambda: journal.stat().st_size if journal.exists() else 0


def many_slides(folder: Path, count: int) -> tuple[list[Path], Callable[[], float]]:
    """Small slides; the number of files tells how far they are."""
    slide = write_slide(folder / "0.tiff", 100, tile_px=small_encoders.SIZE)
    copies = [folder / f"{number}.tiff" for number in range(1, count)]
    for copy in copies:
        shutil.copy(slide, copy)
    return [slide, *copies], lambda: len(list((folder / "out").glob("*.h5")))


def watch_encode(kind: str, count: int) -> dict[str, object]:
    """The memory of `pathencoder encode` over one kind of work."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small_encoders.encoder().save_pretrained(folder / "encoder")
        make = one_slide if kind == "slide" else many_slides
        slides, probe = make(folder, count)
        command = [sys.executable, "-m", "pathencoder", "encode", *map(str, slides)]
        command += ["--out", str(folder / "out"), "--encoder", str(folder / "encoder")]
        seen = watch(command, cwd=ROOT, probe=probe)
        files = len(list((folder / "out").glob("*.h5")))
    if files != len(slides):
        raise SystemExit(f"{files} files of {len(slides)} slides\n{seen.out}")
    early, late = at_a_tenth(seen)
    label = f"{count:,} {'tiles' if kind == 'slide' else 'slides'}"
    print(
        f"{label:16} {early:12.1f} {late:12.1f} {late - early:12.1f}   peak {seen.peak_mb:.1f},"
        f" {seen.seconds:.0f} s"
    )
    say(f"grown to at most {BAR_GROWTH} times", late <= BAR_GROWTH * early)
    found = {"count": count, "tenth_mb": early, "end_mb": late, "peak_mb": seen.peak_mb}
    return {key: round(value, 1) for key, value in found.items()}


def at_a_tenth(seen: Watched) -> tuple[float, float]:
    """The highest memory until a tenth of the work was done, and from there to the end."""
    whole = max(done for done, _ in seen.samples)
    half = next(i for i, (done, _) in enumerate(seen.samples) if done >= 0.05 * whole)
    tenth = next(i for i, (done, _) in enumerate(seen.samples) if done >= 0.1 * whole)
    memory = [now for _, now in seen.samples]
    return max(memory[half : tenth + 1]), max(memory[tenth:])


def say(bar: str, reached: bool) -> None:
    """A bar and whether it was reached."""
    print(f"  {bar}: {'reached' if reached else 'not reached'}", flush=True)


def main() -> None:
    """Print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--encoder", default=None)
    parser.add_argument("--slide-tiles", type=int, default=100_000)
    parser.add_argument("--slides", type=int, default=200)
    asked = parser.parse_args()
    chosen = [asked.only] if asked.only else KINDS
    summary: dict[str, object] = {"benchmark": "memory", "bar_mb": BAR_MB, "bar": BAR_GROWTH}
    if "tiles" in chosen:
        summary |= many_tiles(asked)
    counts = {"slide": asked.slide_tiles, "slides": asked.slides}
    if set(chosen) & set(counts):
        print(f"{'MB':16} {'at 10 %':>12} {'highest after':>12} {'grown by':>11}")
    for kind, count in counts.items():
        if kind in chosen:
            summary[kind] = watch_encode(kind, count)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
