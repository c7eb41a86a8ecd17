"""Copy one file to this machine so that a broken or killed copy goes on where it stopped.

The bytes that came lie in .NAME.partial, and beside them what the source said of the file (size
and ETag). They are kept only as long as the source still has that file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import StoreError
from pathencoder.files import storing
from training.archive.http import SourceError, Stopped, Unanswered

_TRIES = 6  # without one byte more
_PAUSE = 0.5  # seconds, doubled for each try that brought nothing
_SPARE = 100 << 20  # bytes of the disk that stay free


class Broken(Exception):
    """The connection broke; what came is kept."""


class Replaced(SourceError):
    """The source holds another file than the one that was listed."""


@dataclass(frozen=True)
class Part:
    """The rest of a file as a source sends it.

    Attributes:
        start: The byte at which it begins: 0 where the source does not give parts.
        total: Bytes of the whole file; None where the source does not say.
        version: Changes with the content (ETag or date); "" where the source gives none.
        chunks: The bytes. Raises Broken where the connection breaks.
    """

    start: int
    total: int | None
    version: str
    chunks: Iterator[bytes]


# Opens a file at a byte, for a version that must still be there ("" for the first time).
OpenAt = Callable[[int, str], contextlib.AbstractContextManager[Part]]


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it comes.

    Attributes:
        name: What messages call it.
        size: Bytes; None where unknown.
        md5: "" where unknown.
        sha256: Likewise.
    """

    name: str
    size: int | None = None
    md5: str = ""
    sha256: str = ""


def transfer(
    open_at: OpenAt,
    place: Path,
    expected: Expected,
    *,
    stop: threading.Event | None = None,
    pause: float = _PAUSE,
) -> str:
    """Copy a file, and check it.

    Args:
        open_at: Opens the source.
        place: The file to write; its folder is made.
        expected: What must come.
        stop: Set by another thread to end.
        pause: Seconds before another try.

    Returns:
        The sha256 of the file.

    Raises:
        Replaced: The source has another size than was listed.
        Unanswered: The connection breaks off all the time.
        SourceError: It ends early all the time, or its checksum is wrong twice.
        StoreError: The disk has too little room.
        Stopped: `stop` was set; what came is kept.
    """
    stop = stop or threading.Event()
    with storing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        held = _Held(place)
        for last in (False, True):
            held.receive(open_at, expected, stop, pause)
            wrong, sha256 = compare(held.partial, expected)
            if not wrong:
                held.finish()
                return sha256
            held.clear()
            if last:
                raise SourceError(
                    f"{expected.name}: {wrong}, twice: it is damaged at the source, or was replaced"
                    " since it was listed. List it again: python -m training.archive manifest"
                )
    raise AssertionError("the second time returns or raises")


class _Held:
    """The bytes of a file that came so far."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.partial = place.with_name(f".{place.name}.partial")
        self._about = place.with_name(f".{place.name}.partial.json")
        self.version, self.total = "", -1
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(self._about.read_text(encoding="utf-8"))
            self.version, self.total = str(about["version"]), int(about["total"])

    def receive(
        self, open_at: OpenAt, expected: Expected, stop: threading.Event, pause: float
    ) -> None:
        """Receive the rest; tries again as long as bytes come."""
        idle, problem = 0, SourceError("")
        while idle < _TRIES:
            before = self._size()
            try:
                if self._more(open_at, expected, stop):
                    return
                problem = SourceError(f"it ended early {_TRIES} times")
            except Broken as error:
                problem = Unanswered(f"the connection broke off {_TRIES} times ({error})")
            idle = 0 if self._size() > before else idle + 1
            if stop.wait(pause * 2 ** max(0, idle - 1)):
                raise Stopped
        raise type(problem)(
            f"{expected.name}: {problem}. What was received is kept; the same command goes on from"
            " there"
        )

    def _more(self, open_at: OpenAt, expected: Expected, stop: threading.Event) -> bool:
        """Receive once; whether the file is whole."""
        if not self.version:  # what came without a version may be of another file
            self.clear()
        have = self._size()
        if have and have == self.total == (expected.size or self.total):
            return True
        with open_at(have, self.version) as part:
            if expected.size is not None and part.total not in (None, expected.size):
                self.clear()
                raise Replaced(
                    f"{expected.name}: the source has {part.total:,} bytes, and had"
                    f" {expected.size:,} when it was listed: it was replaced. List it again: python"
                    " -m training.archive manifest"
                )
            same = part.start == have and (not have or part.version == self.version)
            if not same:  # another file, or a source that does not give parts
                self.clear()
                if part.start:
                    return False
            self._note(part)
            self._refuse_full_disk(part)
            with self.partial.open("ab") as out:
                for chunk in part.chunks:
                    if stop.is_set():
                        raise Stopped
                    out.write(chunk)
        size = self._size()
        total = part.total if part.total is not None else expected.size
        if total is not None and size > total:
            self.clear()
            return False
        return total is None or size == total

    def finish(self) -> None:
        """Make the file final."""
        with self.partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(self.partial, self.place)
        self._about.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget what came."""
        self.partial.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)
        self.version, self.total = "", -1

    def _size(self) -> int:
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0

    def _note(self, part: Part) -> None:
        total = -1 if part.total is None else part.total
        if (part.version, total) != (self.version, self.total) or not self._about.exists():
            self.version, self.total = part.version, total
            text = json.dumps({"version": part.version, "total": total})
            self._about.write_text(text, encoding="utf-8")

    def _refuse_full_disk(self, part: Part) -> None:
        needed = (part.total or 0) - self._size()
        free = shutil.disk_usage(self.place.parent).free
        if needed + _SPARE > free:
            raise StoreError(
                f"{self.place}: the disk has too little room: {needed / 1e9:.2f} GB are needed and"
                f" {free / 1e9:.2f} GB are free. Make room, or choose another --out; what was"
                " received is kept"
            )


def compare(file: Path, expected: Expected) -> tuple[str, str]:
    """Compare a file with what is known of it.

    Args:
        file: The file.
        expected: What it must be.

    Returns:
        What is wrong, "" where nothing is; and its sha256.

    Raises:
        OSError: It cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(4 << 20):
            sha256.update(block)
            if expected.md5:
                md5.update(block)
    found = sha256.hexdigest()
    if expected.size is not None and file.stat().st_size != expected.size:
        return f"it has {file.stat().st_size:,} bytes instead of {expected.size:,}", found
    if expected.md5 and md5.hexdigest() != expected.md5:
        return "its MD5 is not the one that the source states", found
    if expected.sha256 and found != expected.sha256:
        return "its sha256 is not that of the manifest", found
    return "", found
