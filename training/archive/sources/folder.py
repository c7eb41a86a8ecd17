"""Slides in a folder of this machine or of a network drive. They are read where they lie."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pathencoder.cli.inputs import dicom_slides
from pathencoder.errors import ConfigError
from pathencoder.features.identity import files_of, slide_stat
from pathencoder.formats.file_kinds import looks_like_slide
from pathencoder.walk import printable, walk
from training.archive.facts import sha256_of
from training.archive.http import SourceError
from training.archive.item import Item
from training.archive.privacy import tcga_patient
from training.archive.row import Row
from training.archive.sources.base import safe_name
from training.archive.transfer import Broken, Expected, Part, transfer

_CHUNK = 4 << 20


class Folder:
    """The slides below a folder, or one slide.

    Args:
        path: As the user typed it.
    """

    local = True

    def __init__(self, path: Path) -> None:
        self.root = Path(os.path.abspath(path.expanduser()))
        self.name = f"folder:{printable(self.root)}"
        self.left_out: list[str] = []

    def items(self) -> Iterator[Item]:
        """The slides in natural order; what cannot be walked is in `left_out`.

        Raises:
            ConfigError: There is no such folder.
        """
        if not self.root.exists():
            raise ConfigError(f"{self.root}: no such folder. Check the path, and the mount")
        if self.root.is_file():
            yield self._item(self.root)
            return
        walked = walk(self.root)
        self.left_out = [f"{printable(left.path)}: {left.reason}" for left in walked.left_out]
        dicom: dict[Path, list[Path]] = {}
        others: list[Path] = []
        for path in walked.files:
            if path.suffix.lower() == ".dcm":
                dicom.setdefault(path.parent, []).append(path)
            elif looks_like_slide(path):
                yield self._item(path)
            else:
                others.append(path)
        self.left_out += _summed_up(others)
        for files in dicom.values():
            for slide in dicom_slides(files):
                yield self._item(slide)

    def place(self, row: Row) -> Path:
        """Where a slide lies."""
        return self.root if self.root.is_file() else self.root / row.source_id

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """See `Source.fetch`: copies the files."""
        source = self.place(row)
        try:
            files = files_of(source)
        except OSError as error:
            raise SourceError(f"{source}: it cannot be read ({error.strerror or error})") from error
        if list(files) == [source]:
            wanted = Expected(printable(source), row.size, sha256=row.sha256)
            return transfer(partial(_open, source), place, wanted, stop=stop)
        base, target = (source, place) if source.is_dir() else (source.parent, place.parent)
        for file in files:
            here = target / file.relative_to(base)
            wanted = Expected(printable(file), file.stat().st_size)
            if not here.exists() or here.stat().st_size != wanted.size:
                transfer(partial(_open, file), here, wanted, stop=stop)
        found = sha256_of(place)
        if row.sha256 and found != row.sha256:
            raise SourceError(
                f"{source}: its files changed since they were listed: list them again"
            )
        return found

    def verify(self, row: Row, place: Path) -> str:
        """See `Source.verify`."""
        try:
            if row.sha256 and sha256_of(place) != row.sha256:
                return "its sha256 is not that of the manifest"
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return ""

    def _item(self, path: Path) -> Item:
        relative = path.name if path == self.root else path.relative_to(self.root).as_posix()
        place = "/".join(safe_name(printable(part)) for part in relative.split("/"))
        number = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        problem, size, modified = "", None, 0
        try:
            size, modified, _ = slide_stat(path)
        except OSError as error:
            problem = f"it cannot be read ({error.strerror or error})"
        return Item(
            src=self.name,
            source_id=printable(relative),
            file=f"{safe_name(printable(self.root.name))}-{number}/{place}",
            patient=tcga_patient(relative),
            published=bool(tcga_patient(relative)),
            size=size,
            modified=modified,
            path=path,
            problem=problem,
            described=printable(relative),
        )


def _summed_up(others: Iterable[Path]) -> list[str]:
    """Files that are no slides, by suffix, in one line; without those of a MIRAX slide."""
    kinds = Counter(
        printable(path.suffix.lower()) or "without suffix"
        for path in others
        if not path.parent.with_suffix(".mrxs").exists()
    )
    if not kinds:
        return []
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(8))
    total = kinds.total()
    are = "file is no slide" if total == 1 else "files are no slides"
    return [f"{total:,} {are} ({listed})"]


@contextlib.contextmanager
def _open(source: Path, start: int, version: str) -> Iterator[Part]:
    try:
        stream = source.open("rb")
    except OSError as error:
        raise SourceError(f"{source}: it cannot be read ({error.strerror or error})") from error
    with stream:
        found = os.fstat(stream.fileno())
        now = f"{found.st_size} {found.st_mtime_ns}"
        begin = start if version == now else 0
        stream.seek(begin)
        yield Part(begin, found.st_size, now, _chunks(stream))


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except OSError as error:  # a network drive that went away
        raise Broken(str(error.strerror or error)) from error
