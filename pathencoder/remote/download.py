"""Download one object in blocks, which are fetched again one by one when the connection breaks."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pathencoder.errors import SlideError
from pathencoder.remote.objects import Object, explain, head, split, store_of

BLOCK = 8 << 20  # bytes of one request
_TOGETHER = 4  # requests at the same time
_TRIES = 5  # of one block
_PAUSE = 0.5  # seconds before the second try, doubled for each one that follows


class Stopped(Exception):
    """The download was stopped by the program."""


class Changed(Exception):
    """The object is not the one that was listed."""


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


def _once(
    url: str, listed: Object, file: Path, stop: threading.Event, pause: float, block: int
) -> None:
    folder, name = split(url)
    store, received = store_of(folder), hashlib.blake2b()

    def fetch(start: int) -> bytes:
        end = min(start + block, listed.size)
        return _block(store, url, name, listed, (start, end), stop, pause)

    with file.open("wb") as out, ThreadPoolExecutor(_TOGETHER) as pool:
        for start in range(0, listed.size, block * _TOGETHER):
            if stop.is_set():
                raise Stopped
            starts = range(start, min(start + block * _TOGETHER, listed.size), block)
            for data in pool.map(fetch, starts):
                out.write(data)
                received.update(data)
    _compare(url, listed, head(url))
    with file.open("rb") as written:
        if hashlib.file_digest(written, hashlib.blake2b).digest() != received.digest():
            raise SlideError(
                f"{url}: the file in the scratch folder differs from what was received"
            )


def _block(
    store: Any,
    url: str,
    name: str,
    listed: Object,
    place: tuple[int, int],
    stop: threading.Event,
    pause: float,
) -> bytes:
    """The bytes of one block; tried again where the connection breaks."""
    import obstore

    options: Any = {"range": place}
    if listed.etag and not listed.etag.startswith("W/"):  # a weak one never matches
        options["if_match"] = listed.etag
    for attempt in range(_TRIES):
        if stop.is_set():
            raise Stopped
        try:
            result = obstore.get(store, name, options=options)
            if result.meta["size"] != listed.size:
                raise Changed
            data = bytes(result.bytes())
            if len(data) == place[1] - place[0]:
                return data
            error: Exception = OSError(f"{len(data)} bytes of {place[1] - place[0]}")
        except (Changed, Stopped):
            raise
        except Exception as broken:
            if type(broken).__name__ == "PreconditionError":
                raise Changed from broken
            if isinstance(broken, FileNotFoundError) or _is_final(broken):
                raise SlideError(f"{url}: {explain(broken)}") from broken
            error = broken
        stop.wait(pause * 2**attempt)
    raise SlideError(f"{url}: the download broke off {_TRIES} times: {explain(error)}") from error


def _is_final(error: Exception) -> bool:
    return type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")


def _compare(url: str, before: Object, after: Object | None) -> None:
    if after is None or (before.size, before.etag, before.modified) != (
        after.size,
        after.etag,
        after.modified,
    ):
        raise Changed
