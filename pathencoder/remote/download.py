"""Download one object in blocks, which are fetched again one by one when the connection breaks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import SlideError
from pathencoder.remote.objects import Object, explain, head, located, without_details

BLOCK = 8 << 20  # bytes of one request
_TOGETHER = 4  # requests at the same time
_TRIES = 5  # of one block
_PAUSE = 0.5  # seconds before the second try, doubled for each one that follows


class Stopped(Exception):
    """The download was stopped by the program."""


class Changed(Exception):
    """The object is not the one that was listed."""


class _NoRanges(Exception):
    """The server does not give parts of a file."""


def download(
    url: str,
    listed: Object,
    file: Path,
    *,
    stop: threading.Event | None = None,
    pause: float = _PAUSE,
    block: int = BLOCK,
) -> Object:
    """Download an object to a file.

    Each block that was received stays; after a broken connection only the rest is fetched. The
    object must be the same before, during and after: its size, ETag and time are compared, and the
    bytes on disk with those that were received (BLAKE2b).

    Args:
        url: Of the object.
        listed: The object as it was listed.
        file: The file to write.
        stop: Set by another thread to stop.
        pause: Seconds before the second try of a block.
        block: Bytes of one request.

    Returns:
        The object that was downloaded: another than `listed` where it changed meanwhile.

    Raises:
        SlideError: It cannot be read, or it changes all the time.
        Stopped: `stop` was set.
    """
    stop = stop or threading.Event()
    for last in (False, True):
        try:
            _once(url, listed, file, stop, pause, block)
            return listed
        except Changed:
            found = head(url)
            if last or found is None:
                raise SlideError(
                    f"{url}: it changed during the download, twice. Run the command again when"
                    " its upload has ended"
                ) from None
            listed = Object(listed.name, found.size, found.etag, found.modified)
    raise AssertionError("the second time returns or raises")


@dataclass(frozen=True)
class _Source:
    """What is downloaded, and how long to wait before another try."""

    url: str
    listed: Object
    stop: threading.Event
    pause: float

    def get(self, options: Any = None) -> Any:
        """Ask for the object, or for a range of it, as long as it is the one that was listed.

        Raises:
            Changed: It is another one.
            SlideError: It is gone, or access is refused.
        """
        import obstore

        store, name = located(self.url)
        options = {**(options or {})}
        if self.listed.etag and not self.listed.etag.startswith("W/"):  # a weak one never matches
            options["if_match"] = self.listed.etag
        try:
            found = obstore.get(store, name, options=options)
        except Exception as error:
            if type(error).__name__ == "PreconditionError":
                raise Changed from without_details(error)
            if isinstance(error, FileNotFoundError) or _is_final(error):
                raise SlideError(f"{self.url}: {explain(error, self.url)}") from without_details(
                    error
                )
            if type(error).__name__ == "NotSupportedError":
                raise _NoRanges from without_details(error)
            raise
        if found.meta["size"] != self.listed.size:
            raise Changed
        return found


def _once(
    url: str, listed: Object, file: Path, stop: threading.Event, pause: float, block: int
) -> None:
    source, received = _Source(url, listed, stop, pause), hashlib.blake2b()
    with file.open("wb") as out:
        try:
            for data in _in_blocks(source, block):
                out.write(data)
                received.update(data)
        except _NoRanges:
            out.seek(0)
            out.truncate()
            received = hashlib.blake2b()
            for data in _in_one(source):
                out.write(data)
                received.update(data)
    _compare(listed, head(url))
    with file.open("rb") as written:
        if hashlib.file_digest(written, hashlib.blake2b).digest() != received.digest():
            raise SlideError(
                f"{url}: the file in the scratch folder differs from what was received"
            )


def _in_blocks(source: _Source, block: int) -> Iterator[bytes]:
    """The bytes of an object, several blocks at the same time."""
    size = source.listed.size
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for start in range(0, size, block * _TOGETHER):
            starts = range(start, min(start + block * _TOGETHER, size), block)
            ends = [min(at + block, size) for at in starts]
            yield from pool.map(lambda at, end: _block(source, at, end), starts, ends)


def _block(source: _Source, start: int, end: int) -> bytes:
    """The bytes of one block; tried again where the connection breaks."""
    error: Exception = OSError("no answer")
    for attempt in range(_TRIES):
        if source.stop.is_set():
            raise Stopped
        try:
            data = bytes(source.get({"range": (start, end)}).bytes())
            if len(data) == end - start:
                return data
            error = OSError(f"{len(data)} bytes of {end - start}")
        except (Changed, Stopped, SlideError, _NoRanges):
            raise
        except Exception as broken:  # of the connection
            error = broken
        source.stop.wait(source.pause * 2**attempt)
    raise SlideError(
        f"{source.url}: the download broke off {_TRIES} times: {explain(error, source.url)}"
    ) from without_details(error)


def _in_one(source: _Source) -> Iterator[bytes]:
    """The bytes of an object of a server that does not give parts; a break is an error."""
    left = source.listed.size
    try:
        for chunk in source.get().stream(min_chunk_size=1 << 20):
            if source.stop.is_set():
                raise Stopped
            left -= len(chunk)
            yield bytes(chunk)
    except (Changed, Stopped, SlideError):
        raise
    except Exception as error:
        raise SlideError(
            f"{source.url}: the download broke off: {explain(error, source.url)}"
        ) from without_details(error)
    if left:
        raise SlideError(
            f"{source.url}: the download broke off, {left:,} bytes are missing. Run the command"
            " again"
        )


def _is_final(error: Exception) -> bool:
    return type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")


def _compare(before: Object, after: Object | None) -> None:
    if after is None or (before.size, before.etag, before.modified) != (
        after.size,
        after.etag,
        after.modified,
    ):
        raise Changed
