"""What every source can do, and what sources share."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from training.archive.http import Client, Refused, location
from training.archive.item import Item
from training.archive.row import Row
from training.archive.transfer import Broken, Expected, Part, compare

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK = 1 << 20
_EXPIRED = frozenset({400, 401, 403})  # what storages answer to a signature of yesterday
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Source(Protocol):
    """A source of slides. A new one is one file with these members, and a line in `open_source`.

    Attributes:
        name: As the command names it; the column `src`.
        local: Its files can be read where they lie.
    """

    name: str
    local: bool

    def items(self) -> Iterator[Item]:
        """List the slides.

        Raises:
            SourceError: It does not answer, or refuses access.
            ConfigError: There is no such folder, archive or project.
        """

    def fetch(self, row: Row, place: Path, stop: threading.Event) -> str:
        """Bring a slide here and compare it with what the source states of it.

        Args:
            row: The slide.
            place: The file or folder to write. A copy that was interrupted goes on.
            stop: Set by another thread to end.

        Returns:
            The sha256 of the slide (see `facts.sha256_of`).

        Raises:
            SourceError: It cannot be had, or is not the slide that was listed.
            StoreError: It cannot be written.
            Stopped: `stop` was set.
        """

    def verify(self, row: Row, place: Path) -> str:
        """What is wrong with a slide that was fetched before; "" where nothing is."""


def safe_name(name: str) -> str:
    """A name that stays in its folder on every file system, whatever a server sent."""
    plain = re.sub(r"[^\w.()+ =-]", "_", name).strip(" .")
    return plain[:180] or "slide"


def expected_of(row: Row) -> Expected:
    """What must come for a slide of one file."""
    kind, _, value = row.checksum.partition(":")
    md5 = value if kind == "md5" else ""
    return Expected(f"{row.src} {row.slide}", row.size, md5, row.sha256)


def verify_file(row: Row, place: Path) -> str:
    """What is wrong with a slide of one file by what its row states; "" where nothing is."""
    try:
        return compare(place, expected_of(row))[0]
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


@contextlib.contextmanager
def http_part(client: Client, url: str, start: int, version: str) -> Iterator[Part]:
    """A file of a web server from a byte on.

    Args:
        client: Of the service; only its own host gets the token.
        url: Of the file, or one that redirects to it.
        start: The first byte.
        version: Of what came before; "" where nothing did. The server sends the whole file where it
            has another version now.

    Raises:
        Refused: Access is refused.
        Unanswered: No answer.
    """
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version.startswith('"'):  # a strong ETag
            headers["If-Range"] = version
    answer = client.open(url, headers)
    for _ in range(5):
        target = location(answer, url)
        if target is None:
            break
        answer.close()
        try:
            answer, url = client.open(target, headers), target
        except Refused as error:
            if error.status not in _EXPIRED:
                raise
            raise Broken(
                "the address that was signed for it is refused: its signature expired, or the clock"
                " of this machine is wrong"
            ) from None
    try:
        yield _part(answer, start, version)
    finally:
        answer.close()


def _part(answer: BaseHTTPResponse, start: int, version: str) -> Part:
    found = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if answer.status == 416:  # the file is shorter than what came: another one
        return Part(-1, None, "", iter(()))
    ranged = _RANGE.match(answer.headers.get("Content-Range", ""))
    if answer.status == 206 and ranged:
        whole = None if ranged[2] == "*" else int(ranged[2])
        return Part(int(ranged[1]), whole, found or version, _chunks(answer))
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    return Part(0, total, found, _chunks(answer))


def _chunks(answer: BaseHTTPResponse) -> Iterator[bytes]:
    import urllib3

    try:
        yield from answer.stream(_CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise Broken(type(error).__name__) from None
