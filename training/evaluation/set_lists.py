"""The files of the evaluation sets: lists with hashes, in `splits/NAME.csv.gz`.

A list names for each file its label, group, split, source and the first 16 digits of its sha256, so
that anybody can put the same set together and see where a copy differs. `python -m
training.evaluate sets --write-lists` writes them again, for a maintainer who changes a set.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.files import whole_file
from pathencoder.tables import read_table
from training.evaluation.known_sets import KnownSet

FOLDER = Path(__file__).parent / "splits"
_DIGITS = 16
_ANNOTATIONS = (".labels.png", ".points.csv", ".types.png")
_COLUMNS = ("file", "label", "group", "split", "source", "sha256")


@dataclass(frozen=True, order=True)
class Entry:
    """One file of a set.

    Attributes:
        file: Its path below the folder of the set.
        label: Its class; "" for annotated images and their annotations.
        group: As in the table of the set.
        split: Likewise.
        source: Likewise; "" where there is none.
        sha256: Of the file.
    """

    file: str
    label: str
    group: str
    split: str
    source: str
    sha256: str


def entries_of(table: Path) -> list[Entry]:
    """The files of a set.

    Args:
        table: A labels.csv or meta.csv, in the folder of the images.

    Returns:
        Sorted by file. Annotations beside an image (NAME.labels.png and so on) have entries, too.

    Raises:
        ConfigError: The table or a file cannot be read.
    """
    annotated = table.name == "meta.csv"
    rows = read_table(table, ("file",), last_is_text=annotated)
    found = []
    for row in rows.rows:
        image = table.parent / row["file"]
        group = row.get("slide_id" if annotated else "group", "")
        about = (row.get("label", ""), group, row.get("split", ""), row.get("source", ""))
        beside = [image.with_name(image.stem + end) for end in _ANNOTATIONS] if annotated else []
        for file in (image, *(p for p in beside if p.is_file())):
            name = file.relative_to(table.parent).as_posix()
            found.append(Entry(name, *about, sha256_of(file)))
    return sorted(found)


def digest(entries: Iterable[Entry]) -> str:
    """sha256 of a sorted list of (file, label, group, split, sha256); sources do not count."""
    lines = ["\t".join((e.file, e.label, e.group, e.split, e.sha256)) for e in sorted(entries)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def differences(name: str, entries: Sequence[Entry]) -> str:
    """How the files of a folder differ from the list in the repository.

    Args:
        name: Of the set.
        entries: Of the folder.

    Returns:
        A sentence; "" where they are the same, or there is no list.
    """
    file = FOLDER / f"{name}.csv.gz"
    if not file.is_file():
        return ""
    listed = {e.file: e for e in read_list(file)}
    here = {e.file: e for e in entries}
    both = listed.keys() & here.keys()
    counts = {
        "missing": len(listed.keys() - here.keys()),
        "added": len(here.keys() - listed.keys()),
        "of other content": sum(listed[f].sha256 != here[f].sha256[:_DIGITS] for f in both),
        "with another label, group or split": sum(
            (listed[f].label, listed[f].group, listed[f].split)
            != (here[f].label, here[f].group, here[f].split)
            for f in both
        ),
    }
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
    if not said:
        return ""
    return (
        f"not the files of training/evaluation/splits/{file.name} ({len(listed):,}): {said}."
        " Figures of other copies are not the same"
    )


def read_list(file: Path) -> list[Entry]:
    """The entries of a list; sha256 has its first 16 digits."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        return [Entry(**row) for row in csv.DictReader(stream)]


def write_list(file: Path, entries: Iterable[Entry]) -> None:
    """Write a list; the same entries give the same bytes.

    Raises:
        StoreError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for e in sorted(entries):
        writer.writerow((e.file, e.label, e.group, e.split, e.source, e.sha256[:_DIGITS]))
    with whole_file(file) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def folder_of(known: KnownSet, data: Path) -> Path | None:
    """The folder of a set below the folder of data: by its place or by its name; None: not there.

    Args:
        known: The set.
        data: The folder of data.
    """
    for folder in (data / known.folder, data / known.name):
        if (folder / known.table).is_file():
            return folder
    return None


def how_to_obtain(known: KnownSet, data: Path) -> str:
    """Where a set is had, and where it is looked for."""
    return (
        f"{known.name} is not there: its images are of {known.homepage} ({known.licence}), the"
        f" files are listed in training/evaluation/splits/{known.name}.csv.gz; put them with a"
        f" {known.table} into {data / known.folder} (docs/evaluation.md)"
    )


def sha256_of(file: Path) -> str:
    """sha256 of a file. ConfigError where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror or error}), but the table of its set names"
            " it. Restore the file, or remove its row"
        ) from error
