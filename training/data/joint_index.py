"""One index of all shards of a corpus: where each image is, and what each shard holds.

It is made once from the indices beside the shards, or from their headers, and kept in a file that
every process maps into memory: no index is opened for a tile. A shard whose size or time has
changed is read again at the next start, the others are copied.

The file: a mark; uint32 [images, 2], the offset of each image in blocks of 512 bytes and its size
in bytes, shard after shard; int64 [shards, 4], size, time, images and digest of each shard; their
names and damages as JSON; int64 [3], images, shards and bytes of JSON; the mark again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from pathencoder.errors import ConfigError, ImageError, StoreError
from pathencoder.files import whole_file
from pathencoder.locks import Lock
from training.data.open_files import Place
from training.data.sources import Source, State

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

_MARK = b"pathencoder-si-1"
_BLOCK = 512  # a tar consists of these
_NONE = np.iinfo(np.uint32).max  # for a range that no tar can have
_MANY, _LARGE = 100, 1 << 28  # shards, bytes of shards: fewer are indexed anew in no time
_SAMPLES, _SAMPLE = 4, 4096  # places of a shard whose bytes its digest covers, bytes of each
_RANDOM = 8_000_000  # images from which ranges are too far apart to be read ahead
_TOGETHER = 16  # shards of a store that are indexed at a time
_WAIT = 6 * 3600.0  # seconds, for another process that makes the index


@dataclass(frozen=True)
class Entry:
    """What the index knows of a shard.

    Attributes:
        state: Of the file when it was indexed.
        ranges: uint32 [images, 2], block and size.
        digest: Of its size, its ranges and some of its bytes.
        damage: Why images are missing after these; "" for an undamaged shard.
        folders: (folder in the shard, images) in a row, where that was asked for.
    """

    state: State
    ranges: np.ndarray
    digest: int
    damage: str = ""
    folders: list[tuple[str, int]] | None = None


@dataclass
class JointIndex:
    """The images of all shards.

    Attributes:
        names: Names of the shards.
        shards: int64 [shards, 4]: size, time, images, digest.
        ranges: uint32 [images of all shards, 2]: block and size.
        about: Name of a shard -> {"damage": ..., "folders": ...}, where it has any.
        file: That it is mapped from; None: it is in memory.
    """

    names: list[str]
    shards: np.ndarray
    ranges: np.ndarray
    about: dict[str, dict[str, Any]]
    file: Path | None = None
    starts: np.ndarray = field(init=False, repr=False)
    numbers: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.starts = np.concatenate([[0], np.cumsum(self.shards[:, 2])]).astype(np.int64)
        self.numbers = {name: i for i, name in enumerate(self.names)}

    def images(self, name: str) -> int:
        """How many images a shard has."""
        return int(self.shards[self.numbers[name], 2])

    def damage(self, name: str) -> str:
        """Why images of a shard are missing; ""."""
        return str(self.about.get(name, {}).get("damage", ""))

    def place(self, number: int, image: int, file: Path | str) -> Place:
        """Where an image of a shard is.

        Args:
            number: Of the shard.
            image: Of the images of this shard, in tar order.
            file: The shard.

        Raises:
            ImageError: It has fewer images, or its own index is damaged.
        """
        size, _, images, _ = self.shards[number].tolist()
        if image >= images:
            raise ImageError(f"shard {file} has only {images} tiles")
        block, length = self.ranges[self.starts[number] + image].tolist()
        if _NONE in (block, length):
            raise ImageError(
                f"the index of shard {file} is damaged at image {image}: write it again"
            )
        return Place(file, block * _BLOCK, length, size)

    def digest(self, names: Iterable[str]) -> str:
        """sha256 of the names and digests of some shards."""
        rows = sorted(f"{name} {self.shards[self.numbers[name], 3]}" for name in names)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def entry(self, name: str, state: State, *, folders: bool) -> Entry | None:
        """What is known of a shard in this state; None where that is not enough."""
        number, about = self.numbers.get(name), self.about.get(name, {})
        if number is None or (folders and "folders" not in about):
            return None
        size, version, _, digest = self.shards[number].tolist()
        if State(size, version) != state:
            return None
        own = self.ranges[self.starts[number] : self.starts[number + 1]]
        runs = about.get("folders")
        return Entry(state, own, digest, str(about.get("damage", "")), runs)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is not forked: it maps the file again."""
        state = dict(self.__dict__)
        if self.file is not None:
            state["ranges"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            again = _load(self.file)
            if again is None or not np.array_equal(again.shards, self.shards):
                raise ConfigError(f"{self.file} was replaced during the start: start again")
            self.ranges = again.ranges


def joint_index(source: Source, names: Sequence[str], *, folders: bool = False) -> JointIndex:
    """The index of some shards of a corpus, as they are now.

    Args:
        source: Where the shards are.
        names: The shards; those that do not exist are left out.
        folders: Whether the folders in the shards are asked for.

    Returns:
        The index, mapped from its file unless it is small.
    """
    states = source.states(names)
    there = {name: state for name, state in zip(names, states, strict=True) if state is not None}
    large = sum(state.size for state in there.values()) > _LARGE
    if not (large or len(there) > _MANY):
        return _in_memory(_entries(source, there, None, folders=folders), list(there))
    files, old = source.index_files(), None
    for file in files:
        found = _load(file)
        if found is not None and _is_of(found, there, folders=folders):
            return found
        old = old or found
    return _made(source, files, there, old, folders=folders)


def _made(
    source: Source,
    files: list[Path],
    there: dict[str, State],
    old: JointIndex | None,
    *,
    folders: bool,
) -> JointIndex:
    """Make the index and keep it in the first of the files that can be written."""
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            busy = f"another process has been indexing the shards for {file} for hours"
            lock = Lock(file.with_name(f"{file.name}.lock"), busy, seconds=_WAIT)
        except (StoreError, OSError):
            continue
        try:
            found = _load(file)  # perhaps another process has made it by now
            if found is not None and _is_of(found, there, folders=folders):
                return found
            with whole_file(file) as temporary:
                _write(temporary, _entries(source, there, old, folders=folders), list(there))
        except StoreError as error:
            log.warning("%s", error)
            continue
        finally:
            lock.release()
        made = _load(file)
        if made is not None:
            return made
    log.warning("the index of %d shards cannot be kept: it is made at each start", len(there))
    return _in_memory(_entries(source, there, old, folders=folders), list(there))


def _is_of(index: JointIndex, there: dict[str, State], *, folders: bool) -> bool:
    """Whether an index is of exactly these shards in these states."""
    if index.names != list(there):
        return False
    states = np.array([(s.size, s.version) for s in there.values()], np.int64).reshape(-1, 2)
    known = not folders or all("folders" in index.about.get(name, {}) for name in there)
    return known and np.array_equal(states, index.shards[:, :2])


def _entries(
    source: Source, there: dict[str, State], old: JointIndex | None, *, folders: bool
) -> Iterator[Entry]:
    """What is known of each shard, from the old index, the shard's own, or its headers."""

    def entry_of(item: tuple[str, State]) -> tuple[Entry, bool]:
        name, state = item
        entry = old.entry(name, state, folders=folders) if old else None
        return (entry, False) if entry else _read(source, name, state, folders=folders)

    scanned = 0
    # a store takes several requests for a shard, one after the other, and answers late
    for entry, by_headers in _in_order(entry_of, there.items(), _TOGETHER if source.remote else 1):
        scanned += by_headers
        if by_headers and scanned == _MANY:
            log.info("reading the headers of the shards, once: %d so far", scanned)
        yield entry


def _in_order(act: Callable[[_T], _R], items: Iterable[_T], together: int) -> Iterator[_R]:
    """What a function returns for each item, in order; so many calls at a time.

    At most twice as many results as that are in memory.
    """
    if together == 1:
        yield from map(act, items)
        return
    remaining, begun = iter(items), deque[Future[_R]]()
    with ThreadPoolExecutor(together, thread_name_prefix="index") as pool:
        try:
            while True:
                for item in itertools.islice(remaining, 2 * together - len(begun)):
                    begun.append(pool.submit(act, item))
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read(source: Source, name: str, state: State, *, folders: bool) -> tuple[Entry, bool]:
    """What a shard holds, and whether its headers were read for that."""
    ranges, damage, runs = None if folders else source.ranges(name), "", None
    by_headers = ranges is None
    if ranges is None:
        members = source.members(name)
        ranges, damage = members.ranges, members.damage
        runs = _runs(members.names) if folders else None
    blocks = _blocks(ranges)
    if damage.startswith("cannot be read"):  # may be possible at the next start
        state = State(state.size, -1)
    digest = _digest(source, name, state, blocks)
    return Entry(state, blocks, digest, damage, runs), by_headers


def _runs(names: Sequence[str]) -> list[tuple[str, int]]:
    """The folder of each image, with the number of images in a row that are in it."""
    runs: list[tuple[str, int]] = []
    for name in names:
        folder = name.rpartition("/")[0]
        if runs and runs[-1][0] == folder:
            runs[-1] = (folder, runs[-1][1] + 1)
        else:
            runs.append((folder, 1))
    return runs


def _blocks(ranges: np.ndarray) -> np.ndarray:
    """uint32 [images, 2] of int64 offsets and sizes."""
    offset, size = ranges[:, 0], ranges[:, 1]
    fits = (offset >= 0) & (offset % _BLOCK == 0) & (offset // _BLOCK < _NONE)
    fits &= (size >= 0) & (size < _NONE)
    out: np.ndarray = np.where(
        fits[:, None], np.stack([offset // _BLOCK, size], axis=1), _NONE
    ).astype("<u4")
    return out


def _digest(source: Source, name: str, state: State, blocks: np.ndarray) -> int:
    """Of a shard's size, ranges and some of its bytes: the same for a copy of the shard."""
    seen = hashlib.blake2b(digest_size=7)
    seen.update(f"{state.size}\n".encode() + blocks.tobytes())
    last = max(0, state.size - _SAMPLE)
    length = min(_SAMPLE, state.size)
    at = sorted({last * i // (_SAMPLES - 1) for i in range(_SAMPLES)})
    file = str(source.place(name))  # the key of its open file, as that of its tiles
    try:
        for data in source.read([Place(file, start, length) for start in at]):
            seen.update(data)
    except StoreError:  # of an object store that does not answer
        raise
    except (OSError, ImageError):  # each of its tiles will say so
        seen.update(b"unreadable")
    return int.from_bytes(seen.digest(), "big")


def _in_memory(entries: Iterable[Entry], names: list[str]) -> JointIndex:
    found = list(entries)
    ranges = np.concatenate([np.zeros((0, 2), "<u4"), *(entry.ranges for entry in found)])
    return JointIndex(names, _table(found), ranges, _about(names, found))


def _table(entries: Iterable[Entry]) -> np.ndarray:
    rows = [(e.state.size, e.state.version, len(e.ranges), e.digest) for e in entries]
    return np.array(rows, "<i8").reshape(-1, 4)


def _about(names: Iterable[str], entries: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for name, entry in zip(names, entries, strict=True):
        if entry.damage:
            out.setdefault(name, {})["damage"] = entry.damage
        if entry.folders is not None:
            out.setdefault(name, {})["folders"] = entry.folders
    return out


def _write(file: Path, entries: Iterable[Entry], names: list[str]) -> None:
    kept: list[Entry] = []
    with file.open("wb") as out:
        out.write(_MARK)
        for entry in entries:
            out.write(np.ascontiguousarray(entry.ranges).tobytes())
            # the ranges are in the file now: of a billion tiles they would not fit into memory
            empty = np.broadcast_to(np.zeros((), "<u4"), entry.ranges.shape)
            kept.append(Entry(entry.state, empty, entry.digest, entry.damage, entry.folders))
        table = _table(kept)
        about = json.dumps({"names": names, "about": _about(names, kept)}).encode()
        out.write(table.tobytes() + about)
        tail = np.array([int(table[:, 2].sum()), len(table), len(about)], "<i8")
        out.write(tail.tobytes() + _MARK)


def _load(file: Path) -> JointIndex | None:
    """Map an index; None where there is none, or it is damaged."""
    try:
        with file.open("rb") as stream:
            return _parsed(file, stream)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parsed(file: Path, stream: BinaryIO) -> JointIndex:
    end = stream.seek(0, 2)
    tail = 24 + len(_MARK)
    stream.seek(end - tail)
    data = stream.read(tail)
    images, shards, length = np.frombuffer(data[:24], "<i8").tolist()
    whole = len(_MARK) + 8 * images + 32 * shards + length + tail
    if data[24:] != _MARK or whole != end or min(images, shards, length) < 0:
        raise ValueError("not an index")
    stream.seek(len(_MARK) + 8 * images)
    table = np.frombuffer(stream.read(32 * shards), "<i8").reshape(-1, 4)
    about = json.loads(stream.read(length))
    if int(table[:, 2].sum()) != images or len(about["names"]) != shards:
        raise ValueError("not an index")
    return JointIndex(about["names"], table, mapped_ranges(file, images), about["about"], file)


def mapped_ranges(file: Path, images: int) -> np.ndarray:
    """The ranges in the file of an index, mapped into memory: uint32 [images, 2]."""
    if not images:
        return np.zeros((0, 2))
    mapped = np.memmap(file, "<u4", "r", len(_MARK), (images, 2))
    held = mapped.base
    while isinstance(held, np.ndarray):
        held = held.base
    if images > _RANDOM and isinstance(held, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        # else each look at one of a billion tiles would read 128 kB around its range
        held.madvise(mmap.MADV_RANDOM)
    return mapped.view(np.ndarray)
