"""A corpus with a row a tile: tar shards with manifest.csv, or a plain folder of images. Its index grows with the tiles."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.corpus import Corpus
from training.data.manifest import STAIN_CLASSES, Wanted, digest_of, refuse_shared_patients, stain_index
from training.data.shards import Place, members_of

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class RowTiles:
    """Keys and places, one a tile."""

    keys: list[str]
    places: list[Place]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        """Its name."""
        return self.keys[index]

    def place(self, index: int) -> Place:
        """Its bytes."""
        return self.places[index]


@dataclass(frozen=True)
class _Row:
    key: str
    place: Place
    slide: str
    stain: int = STAIN_CLASSES.index("unknown")
    organ: str = "unknown"


def read_shards(root: Path, wanted: Wanted) -> Corpus | None:
    """The wanted rows of root/manifest.csv whose shard holds them; None when there are none."""
    manifest = root / "manifest.csv"
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    refuse_shared_patients(rows, manifest)
    places = _places(root, sorted({r["shard"] for r in rows}))
    found, lost = [], Counter[str]()
    for r in filter(wanted.takes, rows):
        place = places.get(r["shard"], {}).get(r["key"])
        if place is None:
            lost[r["shard"]] += 1
        else:
            found.append(_Row(r["key"], place, r.get("slide") or r["key"], stain_index(r), r.get("organ") or "unknown"))
    for shard, count in sorted(lost.items()):
        log.warning("skipped: %d tiles of the manifest are not in shard %s", count, root / shard)
    return _corpus(found)


def _places(root: Path, names: list[str]) -> dict[str, dict[str, Place]]:
    out = {}
    for shard in (root / name for name in names):
        if not shard.is_file():
            log.warning("shard %s of the manifest is missing", shard)
            continue
        found = members_of(shard)
        if found.cut:
            log.warning("shard %s is cut short: its first %d tiles are whole", shard, len(found.names))
        out[shard.name] = {
            name: Place(shard, offset, size) for name, (offset, size) in zip(found.names, found.ranges.tolist(), strict=True)
        }
    return out


def read_folder(root: Path) -> Corpus | None:
    """Every image below a folder, its parent folder as the slide; None when there is none."""
    maps = (".labels", ".types")  # label maps beside images are no images
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.stem.endswith(maps))
    return _corpus([_Row(f.relative_to(root).as_posix(), Place(f), f.parent.relative_to(root).as_posix()) for f in files])


def _corpus(rows: list[_Row]) -> Corpus | None:
    if not rows:
        return None
    rows.sort(key=lambda r: (r.slide, r.key))
    slides, first = np.unique([r.slide for r in rows], return_index=True)
    stains = np.array([r.stain for r in rows], dtype=np.int8)
    organs, organ_of = np.unique([rows[i].organ for i in first], return_inverse=True)
    return Corpus(
        tiles=RowTiles([r.key for r in rows], [r.place for r in rows]),
        slide_names=slides.tolist(),
        slide_starts=np.append(first, len(rows)).astype(np.int64),
        slide_stains=stains[first],
        slide_organs=organ_of.astype(np.int32),
        organs=tuple(organs.tolist()),
        digest=digest_of([r.key for r in rows]),
        tile_stains=stains,
    )
