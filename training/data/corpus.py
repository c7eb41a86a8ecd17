"""A corpus of unlabelled tiles: tar shards with a manifest, or any folder of images. Holds the index, reads one tile at a time."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from pathencoder.errors import ConfigError, ImageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# The stain classes that augmentation knows; a folder without a manifest is "unknown".
STAIN_CLASSES = ("he", "ihc", "special", "cytology", "mixed", "unknown")


@dataclass(frozen=True)
class Place:
    """Where a tile's bytes lie: a file, and the range in it (size -1: the whole file)."""

    file: Path
    offset: int = 0
    size: int = -1


@dataclass(frozen=True)
class Corpus:
    """Tiles sorted by slide, so that a slide is a range of indices.

    places: one a tile. stains: int8 [tiles], index into STAIN_CLASSES. slide_starts: int64 [slides + 1], tiles of slide s are
    slide_starts[s] : slide_starts[s + 1]. digest: sha256 of the sorted keys, the identity of the corpus in logs and checkpoints.
    """

    keys: list[str]
    places: list[Place]
    stains: np.ndarray
    slide_names: list[str]
    slide_starts: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> np.ndarray:
        """The tile as uint8 [H, W, 3]. Raises ImageError naming the tile when it cannot be decoded."""
        place = self.places[index]
        try:
            with Image.open(io.BytesIO(_bytes(place))) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            message = f"tile {self.keys[index]} in {place.file} cannot be decoded: {error}"
            raise ImageError(message) from error


@dataclass(frozen=True)
class _Row:
    key: str
    place: Place
    stain: str
    slide: str


def open_corpus(root: Path, *, licences: tuple[str, ...] = (), stains: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Corpus:
    """Index a folder. With a `manifest.csv` beside tar shards: its rows with use=1 (or no `use` column), optionally of these
    licences and stain classes, and without these sources (`src`). Else: every image below it, the parent folder as the slide.

    Raises ConfigError when nothing is left, naming what was asked for.
    """
    if not root.is_dir():
        raise ConfigError(f"data.root {str(root)!r} is not a folder")
    rows = _rows_of_shards(root, licences, stains, without) if (root / "manifest.csv").exists() else _rows_of_folder(root)
    if not rows:
        raise ConfigError(
            f"no tiles in {str(root)!r} with licences {licences or 'any'}, stains {stains or 'any'}, without {without or 'none'}"
        )
    rows.sort(key=lambda r: (r.slide, r.key))
    slides = sorted({r.slide for r in rows})
    counts = np.bincount(np.searchsorted(slides, [r.slide for r in rows]), minlength=len(slides))
    return Corpus(
        keys=[r.key for r in rows],
        places=[r.place for r in rows],
        stains=np.array([STAIN_CLASSES.index(r.stain) for r in rows], dtype=np.int8),
        slide_names=slides,
        slide_starts=np.concatenate([[0], np.cumsum(counts)]),
        digest=hashlib.sha256("\n".join(sorted(r.key for r in rows)).encode()).hexdigest(),
    )


def _rows_of_shards(root: Path, licences: tuple[str, ...], stains: tuple[str, ...], without: tuple[str, ...]) -> list[_Row]:
    places = {shard.name: _index_of(shard) for shard in sorted(root.glob("*.tar"))}
    rows = []
    with (root / "manifest.csv").open(newline="") as file:
        for r in csv.DictReader(file):
            place = places.get(r["shard"], {}).get(r["key"])
            wanted = (
                r.get("use", "1") == "1"
                and (not licences or r.get("licence") in licences)
                and (not stains or r.get("stain_class") in stains)
                and r.get("src") not in without
            )
            if place and wanted:
                stain = r.get("stain_class") or "unknown"
                rows.append(_Row(r["key"], place, stain if stain in STAIN_CLASSES else "unknown", r.get("slide") or r["key"]))
    return rows


def _index_of(shard: Path) -> dict[str, Place]:
    """Where each member of a tar lies. A shard that was cut short gives the members before the cut."""
    index = {}
    with tarfile.open(shard) as tar:
        while True:
            try:
                member = tar.next()
            except (tarfile.TarError, EOFError, OSError):
                break
            if member is None:
                break
            if member.isfile() and member.offset_data + member.size <= shard.stat().st_size:
                index[Path(member.name).stem] = Place(shard, member.offset_data, member.size)
    return index


def _rows_of_folder(root: Path) -> list[_Row]:
    maps = (".labels", ".types")  # label maps beside images are no images
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.stem.endswith(maps))
    return [_Row(f.relative_to(root).as_posix(), Place(f), "unknown", f.parent.relative_to(root).as_posix()) for f in files]


def _bytes(place: Place) -> bytes:
    if place.size < 0:
        return place.file.read_bytes()
    with _LOCK:  # one handle a shard, shared by the decoding threads
        file = _handle(place.file)
        file.seek(place.offset)
        return file.read(place.size)


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=64)
def _handle(path: Path) -> BinaryIO:
    return path.open("rb")
