"""A folder of small slides, its manifest, and how it is packed."""

import csv
from pathlib import Path

from tests.support.small_slides import section, write_tiff
from training.archive.build import Options, build
from training.archive.pack.run import Where, pack
from training.archive.pack.settings import Settings
from training.archive.rows import Defaults
from training.archive.sources.folder import Folder
from training.archive.store import csv_of, read_manifest

HERE = Where(processes=0)
SMALL = Settings(tiles=6, tile_px=64, shard_mb=1)


def write_slide(path: Path, seed: int, **options) -> Path:
    """A slide of 640 x 512 px whose tissue is in another place for each seed."""
    left, top = 40 * (seed % 5), 30 * (seed % 7)
    tissue = ((64 + left, 48 + top, 400 + left, 320 + top),)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, section(640, 512, tissue, seed=seed), **options)


def small_manifest(root: Path, count: int = 3):
    """Slides in root/slides and their manifest; its rows."""
    for i in range(count):
        write_slide(root / "slides" / f"case{i}_HE.tif", i)
    return manifest_of(root)


def manifest_of(root: Path):
    """The manifest of root/slides; its rows."""
    out = root / "m.parquet"
    build([Folder(root / "slides")], out, Options(defaults=Defaults("", "", "P"), processes=1))
    return read_manifest(out).rows


def edit_manifest(out: Path, slide: str, *, by: str = "slide", **values: str) -> None:
    """Edit a slide's row of a manifest's CSV, as a person does; `by` names the column."""
    with csv_of(out).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    next(row for row in rows if row[by] == slide).update(values)
    with csv_of(out).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def packed(rows, root: Path, settings: Settings = SMALL, **options):
    """Pack into root/shards, in this process."""
    options = {"where": HERE, "slides": root} | options
    return pack(rows, root / "shards", settings, **options)


def contents(folder: Path):
    """Every file's bytes by name; without indices, which hold times."""
    files = (f for f in folder.rglob("*") if f.is_file() and not f.name.endswith(".index.npy"))
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}
