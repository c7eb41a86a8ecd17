"""What a folder of shards holds: slides.csv, SHA256SUMS, failed.csv, duplicates.csv.

They are made anew from the records of the groups and the manifest of now: an edit of the manifest
(stain, split, use) counts without packing again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathencoder.files import whole_file
from pathencoder.locks import Lock
from training.archive.pack.files import read_record, shard_name
from training.archive.pack.hashes import SLIDE_BITS, from_text, near
from training.archive.pack.layout import Layout
from training.archive.row import Row, as_text

SLIDES, SUMS, FAILED, DUPLICATES = "slides.csv", "SHA256SUMS", "failed.csv", "duplicates.csv"
_OF_ROW = ("patient", "stain_class", "stain", "organ", "scanner", "licence", "split", "src")
_COLUMNS = ("slide", "shard", "first", "tiles", "mpp_value", *_OF_ROW, "use", "content")
_OF_POSITIONS = ("side", "own_mpp", "tile_px", "file")  # what reads a tile from its slide
_LOCK_SECONDS = 300.0
_LEAST_RATIO = 4  # bits that are set in two equal pictures, for each that differs


@dataclass
class Tables:
    """What is written.

    Attributes:
        slides: Slides with tiles.
        tiles: Their tiles.
        bytes: Of the shards.
        shards: How many.
        failed: Slide and reason of each that gave no tiles.
        damaged: Slide, tiles that could not be read, and the first reason.
        duplicates: Slide, the other slide, how they were found, differing bits, splits.
        alike: Tiles that nearly equal another tile of their slide.
        notes: What was noted of slides -> in how many.
    """

    slides: int = 0
    tiles: int = 0
    bytes: int = 0
    shards: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[tuple[str, int, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, str, int, str]] = field(default_factory=list)
    alike: int = 0
    notes: dict[str, int] = field(default_factory=dict)


def write_tables(out: Path, layout: Layout, rows: Sequence[Row]) -> Tables:
    """Write the tables of all groups that are done.

    Args:
        out: The folder of the shards.
        layout: Its groups.
        rows: Of the manifest.

    Returns:
        What they hold.

    Raises:
        StoreError: They cannot be written.
    """
    lock = Lock(
        out / ".tables.lock",
        f"{out}: another process has been writing its tables for five minutes",
        seconds=_LOCK_SECONDS,
        between_machines=True,
    )
    try:
        return _write(out, layout, {row.slide: row for row in rows})
    finally:
        lock.release()


def _write(out: Path, layout: Layout, rows: dict[str, Row]) -> Tables:
    found, sums = Tables(), []
    entries: dict[str, tuple[int, dict[str, Any]]] = {}
    for number in range(len(layout.groups)):
        record = read_record(out, number)
        if record is None:
            continue
        sums += [f"{shard['sha256']}  {shard['name']}\n" for shard in record["shards"]]
        found.bytes += sum(shard["bytes"] for shard in record["shards"])
        found.shards += len(record["shards"])
        for entry in record["slides"]:
            entries[entry["slide"]] = number, entry  # the last one, of a slide that was tried again
    _count(found, [entry for _, entry in entries.values()])
    whole = [entry for _, entry in entries.values() if not entry["problem"]]
    found.duplicates = _duplicates(whole, rows)
    copies = {one for one, _, how, *_ in found.duplicates if how == "bytes"}
    lines: list[Sequence[str]] = []
    settings = layout.settings
    for name, (number, entry) in sorted(entries.items()):
        shard = shard_name(number, entry["part"], pixels=settings.pixels)
        where = () if settings.pixels else (str(settings.tile_px), entry["file"])
        lines += _lines(rows[name], entry, shard, copy=name in copies, where=where)
    _table(out / SLIDES, _COLUMNS + (() if settings.pixels else _OF_POSITIONS), lines)
    with whole_file(out / SUMS) as temporary:
        temporary.write_text("".join(sorted(sums)), encoding="utf-8")
    _table(out / FAILED, ("slide", "reason"), sorted(found.failed))
    header = ("slide", "other", "by", "bits", "splits")
    _table(out / DUPLICATES, header, [list(map(str, row)) for row in found.duplicates])
    return found


def _count(found: Tables, entries: Iterable[dict[str, Any]]) -> None:
    for entry in entries:
        if entry["problem"]:
            found.failed.append((entry["slide"], entry["problem"]))
            continue
        found.slides += 1
        for note in entry["notes"]:
            found.notes[note] = found.notes.get(note, 0) + 1
        for scale in entry["scales"]:
            found.tiles += scale["tiles"]
            found.alike += scale["alike"]
            if scale["failed"]:
                found.damaged.append((entry["slide"], scale["failed"], scale["first_error"]))


def _lines(
    row: Row, entry: dict[str, Any], shard: str, *, copy: bool, where: Sequence[str]
) -> list[list[str]]:
    """The rows of a slide: one for each scale."""
    use = row.use and not row.excluded and not copy
    return [
        [
            row.slide,
            shard,
            str(scale["first"]),
            str(scale["tiles"]),
            repr(scale["mpp"]),
            *(as_text(getattr(row, name)) for name in _OF_ROW),
            "1" if use else "0",
            entry["content"],
            *([repr(scale["side"]), repr(scale["own_mpp"]), *where] if where else []),
        ]
        for scale in entry["scales"]
        if scale["tiles"]
    ]


def _duplicates(
    entries: Sequence[dict[str, Any]], rows: dict[str, Row]
) -> list[tuple[str, str, str, int, str]]:
    """Slides with the same bytes, and those whose small pictures are nearly equal."""
    found: list[tuple[str, str, str, int, str]] = []
    first: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: entry["slide"]):
        name, other = entry["slide"], first.setdefault(entry["content"], entry["slide"])
        if other != name:
            found.append((name, other, "bytes", 0, _splits(rows[name], rows[other])))
    pictured = sorted((e for e in entries if e["picture"]), key=lambda entry: entry["slide"])
    if pictured:
        hashes = np.stack([from_text(entry["picture"]) for entry in pictured])
        for i, j in near(hashes, SLIDE_BITS):
            if pictured[i]["content"] == pictured[j]["content"]:
                continue
            bits = _ones(hashes[i] ^ hashes[j])
            if bits * _LEAST_RATIO > _ones(hashes[i] | hashes[j]):  # both are nearly empty glass
                continue
            one, other = pictured[i]["slide"], pictured[j]["slide"]
            found.append((other, one, "picture", bits, _splits(rows[one], rows[other])))
    return found


def _ones(hashed: np.ndarray) -> int:
    return int(np.unpackbits(hashed.view(np.uint8)).sum())


def _splits(one: Row, other: Row) -> str:
    return one.split if one.split == other.split else f"{one.split} and {other.split}"


def _table(file: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    with whole_file(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
