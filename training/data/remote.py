"""A corpus in an object store or on a web server: listing, indices, ranges of shards.

Credentials are those that pathencoder/remote/objects.py describes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from pathencoder.errors import ConfigError, ImageError, SlideError, StoreError
from pathencoder.files import whole_file
from pathencoder.remote.objects import Object, explain, head, listing, store_of
from pathencoder.walk import natural
from training.data.open_files import Place
from training.data.range_cache import RangeCache
from training.data.shards import INDEX_SUFFIX, ranges_of_copy
from training.data.sources import State, cache_folder, index_name
from training.data.tar import Members, members_in

log = logging.getLogger(__name__)

T = TypeVar("T")

_TOGETHER = 32  # requests at the same time
_TRIES = 6
_PAUSE = 0.5  # seconds before the second try, doubled for each one that follows
_NEAR = 128 << 10  # bytes between two tiles that cost less to receive than another request
_HEADER = 512  # bytes of a tar's header
_BUFFER = 8 << 20  # bytes of a shard that are fetched at once when its headers are read


class Bucket:
    """The files below a URL.

    Args:
        url: s3://bucket/folder, gs://..., az://..., https://....
        cache_mb: Space for fetched tiles on the local disk, in MB; 0: none.
    """

    remote = True

    def __init__(self, url: str, cache_mb: int = 0) -> None:
        self.url, self.cache_mb = url.rstrip("/"), cache_mb
        self._objects: dict[str, Object] | None = None
        self._pool = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="fetch")
        self._cache = (
            RangeCache(cache_folder() / f"{index_name(self.url)}.tiles", cache_mb << 20)
            if cache_mb
            else None
        )

    @property
    def shared(self) -> bool:
        """Whether there is a cache on the local disk."""
        return self._cache is not None

    def place(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{name}" if name else self.url

    def states(self, names: Sequence[str]) -> list[State | None]:
        """Size of each object, and a number made from its ETag; None where there is none."""
        objects = self._listed()
        if objects is not None:
            found = [objects.get(name) for name in names]
        else:
            found = list(self._pool.map(self._head, names))
        return [None if o is None else State(o.size, _version(o)) for o in found]

    def shards(self) -> list[str]:
        """All tars, in natural order.

        Raises:
            ConfigError: A web server does not list its files.
        """
        objects = self._listed()
        if objects is None:
            raise ConfigError(
                f"{self.url}: a web server does not list its files. Add a slides.csv that names the"
                " shards"
            )
        names = (PurePosixPath(name) for name in objects if name.endswith(".tar"))
        return [str(name) for name in sorted(names, key=lambda name: natural(Path(name)))]

    def ranges(self, name: str) -> np.ndarray | None:
        """The ranges of a shard's images by the index beside it; None without a valid one."""
        index, (state,) = f"{name}{INDEX_SUFFIX}", self.states([name])
        if state is None or self.states([index])[0] is None:
            return None
        found = ranges_of_copy(self._get(index), state.size)
        if found is not None and self._is_index_of(name, found):
            return found
        log.warning("%s is of another tar than %s and is not used", index, self.place(name))
        return None

    def _is_index_of(self, name: str, ranges: np.ndarray) -> bool:
        """Whether the shard has headers with their sizes before the first and the last image."""
        ends = ranges[[0, -1]].tolist() if len(ranges) else []
        if any(offset < _HEADER for offset, _ in ends):
            return False
        file = self.place(name)
        blocks = self.read([Place(file, offset - _HEADER, _HEADER) for offset, _ in ends])
        return all(_is_header(block, size) for block, (_, size) in zip(blocks, ends, strict=True))

    def members(self, name: str) -> Members:
        """The images of a shard by its headers; the whole shard is fetched for that."""
        (state,) = self.states([name])
        size = 0 if state is None else state.size
        reader = io.BufferedReader(_Remote(self, name, size), _BUFFER)
        return members_in(reader, size)

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The bytes of several places, from the cache or fetched together.

        Raises:
            ImageError: An object is missing, or ends before them.
            StoreError: The store does not answer, after several tries.
        """
        return [_whole(data) for data in self.fetch(places)]

    def fetch(self, places: Sequence[Place]) -> list[bytes | ImageError]:
        """The same, with the error of a place instead of its bytes."""
        found: list[bytes | ImageError | None] = [None] * len(places)
        keys = [self._key(place) for place in places] if self._cache is not None else []
        if self._cache is not None:
            there = self._cache.get(keys)
            found = [there.get(key) for key in keys]
        by_file: dict[str, list[int]] = {}
        for i, place in enumerate(places):
            if found[i] is None:
                by_file.setdefault(str(place.file), []).append(i)
        wanted = [[places[i] for i in of] for of in by_file.values()]
        for of, part in zip(by_file.values(), self._pool.map(self._ranges, wanted), strict=True):
            for i, data in zip(of, part, strict=True):
                found[i] = data
        if self._cache is not None:
            new = {keys[i]: found[i] for of in by_file.values() for i in of}
            self._cache.put({k: data for k, data in new.items() if isinstance(data, bytes)})
        return [data for data in found if data is not None]

    def table(self, name: str) -> Path | None:
        """A copy of a table in the local cache; None where there is none."""
        if self._head(name) is None:
            return None
        file = cache_folder() / index_name(self.url).removesuffix(".index") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary:
            temporary.write_bytes(self._get(name))
        return file

    def index_files(self) -> list[Path]:
        """In the user's cache."""
        return [cache_folder() / index_name(self.url)]

    def __reduce__(self) -> tuple[Any, ...]:
        return Bucket, (self.url, self.cache_mb)

    def _listed(self) -> dict[str, Object] | None:
        """All objects by name; None for a web server, which does not list them."""
        if self.url.startswith(("http://", "https://")):
            return None
        if self._objects is None:
            self._objects = {item.name: item for item in listing(self.url)}
        return self._objects

    def _head(self, name: str) -> Object | None:
        objects = self._listed()
        return head(self.place(name)) if objects is None else objects.get(name)

    def _get(self, name: str) -> bytes:
        import obstore

        def act() -> bytes:
            return bytes(obstore.get(store_of(self.url), name).bytes())

        return _tried(act, self.place(name))

    def _ranges(self, places: Sequence[Place]) -> list[bytes | ImageError]:
        """The bytes of several ranges of one shard, or the error of each."""
        import obstore

        file = str(places[0].file)
        name = file.removeprefix(f"{self.url}/")
        starts = [place.offset for place in places]
        lengths = [place.size for place in places]

        def act() -> list[bytes]:
            store = store_of(self.url)
            found = obstore.get_ranges(store, name, starts=starts, lengths=lengths, coalesce=_NEAR)
            return [bytes(data) for data in found]

        try:
            parts = _tried(act, file)
        except ImageError as error:
            return [error] * len(places)
        return [
            data
            if len(data) == place.size
            else ImageError(f"{file} is cut short at {place.offset}")
            for place, data in zip(places, parts, strict=True)
        ]

    def _key(self, place: Place) -> str:
        """Of a place in the cache: another for another version of the object."""
        name = str(place.file).removeprefix(f"{self.url}/")
        listed = (self._objects or {}).get(name)
        version = _version(listed) if listed else place.of
        return f"{name}:{place.offset}:{place.size}:{version}"


class _Remote(io.RawIOBase):
    """An object as a file that is read at any place."""

    def __init__(self, bucket: Bucket, name: str, size: int) -> None:
        self._bucket, self._name, self._size, self._at = bucket, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            place = Place(self._bucket.place(self._name), self._at, length)
            (data,) = self._bucket._ranges([place])
            buffer[:length] = _whole(data)
        self._at += length
        return length


def _is_header(block: bytes, size: int) -> bool:
    """Whether a block is the header of a tar's member of this size."""
    digits = block[124:136].strip(b"\0 ")
    return block[257:262] == b"ustar" and digits.isdigit() and int(digits, 8) == size


def _whole(data: bytes | ImageError) -> bytes:
    if isinstance(data, ImageError):
        raise data
    return data


def _version(listed: Object) -> int:
    """A number that changes with the content of an object."""
    text = f"{listed.etag or listed.modified}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _tried(act: Callable[[], T], url: str) -> T:
    """Do something at a store, several times where the connection breaks.

    Raises:
        ImageError: The object does not exist or is too short: other objects may be read.
        StoreError: The store does not answer, or refuses access.
    """
    for tries in range(1, _TRIES + 1):
        try:
            return act()
        except FileNotFoundError:
            raise ImageError(f"{url} is missing") from None
        except Exception as error:
            name = type(error).__name__
            if "range" in str(error).lower() and "invalid" in str(error).lower():
                raise ImageError(f"{url} is cut short") from error
            refused = name in ("PermissionDeniedError", "UnauthenticatedError")
            if refused or isinstance(error, SlideError | ConfigError) or tries == _TRIES:
                raise StoreError(
                    f"{url}: {explain(error)}. The same command resumes the run"
                ) from error
            pause = _PAUSE * 2 ** (tries - 1) * (1 + random.random())
            log.warning("%s: %s; trying again in %.1f s", url, name, pause)
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")
