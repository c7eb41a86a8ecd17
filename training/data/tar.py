"""The images of a tar: their names and the ranges of their bytes."""

from __future__ import annotations

import posixpath
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from pathencoder.errors import StoreError
from pathencoder.images import SUFFIXES
from pathencoder.walk import printable

# how the names of label maps end, before the suffix
LABEL_MAPS = (".labels", ".types")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Members:
    """The images of a tar, in tar order.

    Attributes:
        names: Their paths in the tar.
        ranges: int64 [images, 2], offset and size of their bytes.
        left_out: Other members: why they are no tiles -> how many.
        damage: Why the images after these cannot be read; "" for an undamaged tar.
    """

    names: list[str]
    ranges: np.ndarray
    left_out: Counter[str]
    damage: str


def why_no_tile(name: str) -> str:
    """Why a file is no tile, by its path in the folder or tar; "" for a tile."""
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") for part in parts):
        return "hidden"
    path = PurePosixPath(name)
    if path.suffix.lower() not in SUFFIXES:
        return f"no image ({path.suffix.lower() or 'no suffix'})"
    return "label map" if path.stem.endswith(LABEL_MAPS) else ""


def members_of(shard: Path) -> Members:
    """Scan the headers of a tar.

    A link counts as the image that it points to. Of several tars in one file, as `cat` makes them,
    all are read. A damaged or truncated tar gives the images before the damage.

    Args:
        shard: The tar, not compressed.

    Returns:
        Its images.
    """
    try:
        with shard.open("rb") as file:
            return members_in(file, shard.stat().st_size)
    except OSError as error:
        damage = f"cannot be read ({error.strerror or error})"
        return _Found().members(damage)


def members_in(file: BinaryIO, size: int) -> Members:
    """The same for an open file of this size."""
    found = _Found()
    try:
        damage = _read_all(file, size, found)
    except StoreError:  # of an object store that does not answer
        raise
    except OSError as error:
        damage = f"cannot be read ({error.strerror or error})"
    return found.members(damage)


@dataclass
class _Found:
    """The images found so far; links: index of a name -> the path in the tar it points to."""

    names: list[str] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    links: dict[int, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        name = _path(member.name)
        is_link = member.islnk() or member.issym()
        reason = why_no_tile(name)
        if not reason and (member.issparse() or not (member.isfile() or is_link)):
            reason = "no plain file"
        if reason:
            self.left_out[reason] += 1
            return
        if is_link:
            folder = "" if member.islnk() else name.rpartition("/")[0]
            self.links[len(self.names)] = _path(posixpath.normpath(f"{folder}/{member.linkname}"))
        self.names.append(name)
        self.ranges.append((member.offset_data, member.size))

    def members(self, damage: str) -> Members:
        """All images, links with the ranges of their targets."""
        lost = self._follow_links() if self.links else set()
        kept = [i for i in range(len(self.names)) if i not in lost]
        if lost:
            self.left_out["link to nothing in the tar"] += len(lost)
        return Members(
            [printable(self.names[i]) for i in kept],
            np.array([self.ranges[i] for i in kept], dtype=np.int64).reshape(-1, 2),
            self.left_out,
            damage,
        )

    def _follow_links(self) -> set[int]:
        """Give links the ranges of their targets; returns the indices of the broken ones."""
        index = {name: i for i, name in enumerate(self.names)}
        lost = set()
        for link in self.links:
            at: int | None = link
            for _ in range(len(self.links) + 1):  # no longer, as links may form a cycle
                if at is None or at not in self.links:
                    break
                at = index.get(self.links[at])
            if at is None or at in self.links:
                lost.add(link)
            else:
                self.ranges[link] = self.ranges[at]
        return lost


def _path(name: str) -> str:
    """A path in a tar without a leading "./" or "/"."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _read_all(file: BinaryIO, end: int, found: _Found) -> str:
    """Read all tars of a file; returns the damage that ended the reading, or ""."""
    position: int | None = 0
    while position is not None:
        damage, position = _read_one(file, position, end, found)
        if damage:
            return damage
        position = _next_header(file, position)
    return ""


def _read_one(file: BinaryIO, start: int, end: int, found: _Found) -> tuple[str, int]:
    """Read the tar at `start`; returns its damage or "", and where its headers end."""
    at = start
    try:
        file.seek(start)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # tarfile would keep every header in memory; its type stubs omit the list
                tar.members.clear()  # type: ignore[attr-defined]
                if member.size < 0 or tar.offset <= at:
                    return f"is damaged at byte {at}", at
                if member.offset_data + (member.size if member.isfile() else 0) > end:
                    return "is cut short", at
                at = tar.offset
                found.add(member)
            at = tar.offset
    except StoreError:
        raise
    # On damaged headers, tarfile raises more than its own errors.
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        MemoryError,
        RecursionError,
    ):
        return _damage(file, min(at, end)), min(at, end)
    if at > end:  # a member that is no file states an impossible size
        return "is cut short", end
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) == tarfile.BLOCKSIZE and not any(block):  # a tar ends in empty blocks
        return "", at
    return _damage(file, at), at


def _damage(file: BinaryIO, at: int) -> str:
    """Why no header could be read at a byte."""
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE)
    packed = next(
        (name for mark, name in _PACKED.items() if at == 0 and block.startswith(mark)), None
    )
    if packed:
        return f"is compressed ({packed}): unpack it"
    if len(block) < tarfile.BLOCKSIZE:
        return "is cut short"
    return f"is damaged at byte {at}" if at else "is no tar"


def _next_header(file: BinaryIO, position: int) -> int | None:
    """The position of the next block that is not empty; None at the end of the file."""
    file.seek(position)
    while chunk := file.read(_CHUNK):
        empty = len(chunk) - len(chunk.lstrip(b"\0"))
        if empty < len(chunk):
            return position + empty // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        position += len(chunk)
    return None
