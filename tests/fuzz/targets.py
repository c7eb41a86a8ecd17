"""The functions that damaged files are given to.

A target writes its inputs into an empty folder, runs, and raises Violation where a promise is
broken.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pathencoder import load_encoder, read_features
from pathencoder.cli.main import run
from pathencoder.errors import PathEncoderError
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate


class Violation(Exception):
    """An outcome that no input may cause."""


@dataclass(frozen=True)
class Bench:
    """Valid files, made once: images by name, and one path for each other kind."""

    images: dict[str, Path]
    slide: Path
    encoder: Path
    by_tile: Path
    by_slide: Path
    features: Path


KINDS = {
    ".jpg": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".csv": "csv",
    ".json": "json",
    ".geojson": "json",
    ".safetensors": "safetensors",
    ".tar": "tar",
}


def make_bench(folder: Path) -> Bench:
    """Write the valid files, and check that they are."""
    images, encoder = seeds.images(folder / "images"), seeds.encoder(folder / "encoder")
    bench = Bench(
        images,
        seeds.slide(folder / "slide.tif"),
        encoder,
        seeds.shards(folder / "by_tile", by_slide=False),
        seeds.shards(folder / "by_slide", by_slide=True),
        folder / "features",
    )
    tiles = folder / "tiles"
    tiles.mkdir()
    for name in ("rgb.png", "baseline.jpg"):
        shutil.copy(images[name], tiles / name)
    _command(
        "encode",
        tiles,
        bench.slide,
        "--as",
        "tiles",
        "--encoder",
        encoder,
        "--out",
        bench.features,
        status=(0, 3),
    )
    return bench


def encode_tiles(bench: Bench, work: Path, rng: random.Random) -> None:
    """One damaged image beside a good one: the good one is embedded whatever the other is."""
    name = rng.choice(sorted(bench.images))
    good, bad = bench.images["rgb.png"], bench.images[name]
    (work / "tiles").mkdir()
    shutil.copy(good, work / "tiles/good.png")
    (work / "tiles" / f"bad-{name}").write_bytes(mutate(bad.read_bytes(), _kind(bad), rng))
    _command(
        "encode", work / "tiles", "--encoder", bench.encoder, "--out", work / "out", status=(0, 3)
    )
    _holds_good(work / "out")


def encode_slide(bench: Bench, work: Path, rng: random.Random) -> None:
    """A damaged slide, beside a folder of one good tile."""
    (work / "tiles").mkdir()
    shutil.copy(bench.images["rgb.png"], work / "tiles/good.png")
    (work / "bad.tif").write_bytes(mutate(bench.slide.read_bytes(), "tiff", rng))
    _command(
        "encode",
        work / "bad.tif",
        work / "tiles",
        "--encoder",
        bench.encoder,
        "--out",
        work / "out",
        status=(0, 3),
    )
    _holds_good(work / "out")


def resume(bench: Bench, work: Path, rng: random.Random) -> None:
    """A feature file that an earlier run left, damaged."""
    (work / "tiles").mkdir()
    shutil.copy(bench.images["rgb.png"], work / "tiles/rgb.png")
    shutil.copytree(bench.features, work / "out")
    for file in (work / "out").glob("*.h5"):
        file.write_bytes(mutate(file.read_bytes(), "hdf5", rng))
        with contextlib.suppress(PathEncoderError):
            read_features(file)
    _command(
        "encode",
        work / "tiles",
        "--encoder",
        bench.encoder,
        "--out",
        work / "out",
        status=(0, 1, 2, 3),
    )


def mpp_table(bench: Bench, work: Path, rng: random.Random) -> None:
    """A damaged table of micrometres per pixel."""
    shutil.copy(bench.images["rgb.png"], work / "good.png")
    (work / "mpp.csv").write_bytes(mutate(b"slide,mpp\ngood.png,0.5\nb.svs,0.25\n", "csv", rng))
    _command(
        "encode",
        work / "good.png",
        "--mpp-csv",
        work / "mpp.csv",
        "--encoder",
        bench.encoder,
        "--out",
        work / "out",
    )


def nuclei(bench: Bench, work: Path, rng: random.Random) -> None:
    """A damaged image beside a good one."""
    name = rng.choice(sorted(bench.images))
    (work / "in").mkdir()
    shutil.copy(bench.images["rgb.png"], work / "in/good.png")
    (work / "in" / f"bad-{name}").write_bytes(
        mutate(bench.images[name].read_bytes(), _kind(bench.images[name]), rng)
    )
    _command("nuclei", work / "in", "--mpp", "0.25", "--out", work / "out", status=(0, 3))
    if not list((work / "out").glob("good*.csv")):
        raise Violation("the good image has no result")


def corpus(bench: Bench, work: Path, rng: random.Random) -> None:
    """A corpus with a damaged shard or table: opened, and every tile read."""
    from training.data.corpus import open_corpus

    root = work / "corpus"
    shutil.copytree(rng.choice((bench.by_tile, bench.by_slide)), root)
    file = rng.choice(sorted(f for f in root.iterdir() if f.suffix in (".tar", ".csv")))
    file.write_bytes(mutate(file.read_bytes(), _kind(file), rng))
    with contextlib.suppress(PathEncoderError):
        found = open_corpus(root)
        for i in range(min(len(found), 50)):
            with contextlib.suppress(PathEncoderError):
                found.read(i)


def encoder_folder(bench: Bench, work: Path, rng: random.Random) -> None:
    """An encoder's folder with one damaged file: loaded, and asked for a row."""
    folder = work / "encoder"
    shutil.copytree(bench.encoder, folder)
    file = rng.choice(sorted(f for f in folder.iterdir() if f.is_file()))
    file.write_bytes(mutate(file.read_bytes(), _kind(file), rng))
    with contextlib.suppress(PathEncoderError):
        load_encoder(folder).encode(seeds.tile(), progress=False)


def pictures(bench: Bench, work: Path, rng: random.Random) -> None:
    """Damaged labels of an image: the set is read, or refused with a reason."""
    from pathencoder.heads.data.pictures import read_pictures

    folder = work / "set"
    name, data = rng.choice(seeds.labels(folder))
    file = folder / name
    file.write_bytes(mutate(data, _kind(file), rng))
    given = file if name == "set.csv" or (name == "set.json" and rng.random() < 0.5) else folder
    task = rng.choice(("nuclei", "points", "pixels"))
    with contextlib.suppress(PathEncoderError):
        for row in read_pictures(given, task=task, mpp=0.5):
            row.load()


# Target and how often it is drawn.
TARGETS: dict[str, tuple[Callable[[Bench, Path, random.Random], None], int]] = {
    "encode_tiles": (encode_tiles, 10),
    "encode_slide": (encode_slide, 4),
    "resume": (resume, 2),
    "mpp_table": (mpp_table, 1),
    "nuclei": (nuclei, 2),
    "corpus": (corpus, 4),
    "encoder_folder": (encoder_folder, 3),
    "pictures": (pictures, 6),
}


def _kind(file: Path) -> str:
    return KINDS.get(file.suffix, file.suffix)


def _command(*arguments: object, status: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """Run one command line.

    Raises:
        Violation: A traceback, an unexpected exception, or another exit status.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = run([str(a) for a in arguments])
    printed = out.getvalue() + err.getvalue()
    if "Traceback (most recent call last)" in printed or "bug in pathencoder" in printed:
        raise Violation(f"an unexpected exception: {printed[-600:]}")
    if ended not in status:
        raise Violation(f"exit status {ended}, one of {status} is right: {printed[-600:]}")


def _holds_good(out: Path) -> None:
    keys = [key for file in out.glob("*.h5") for key in read_features(file).keys or []]
    if "good.png" not in keys:
        raise Violation(f"the good tile has no row; the files hold {keys}")
