"""The files of a folder of shards, and a tar that can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pathencoder.errors import StoreError
from pathencoder.files import storing
from training.archive.pack.settings import Settings
from training.data.shards import ranges_of, write_index

POSITION = struct.Struct("<ii")  # x and y, where positions are written instead of tiles
_BLOCK = tarfile.BLOCKSIZE
_MODE = 0o644


def record_of(out: Path, number: int) -> Path:
    """The record of a group: its shards and slides. It exists when the group is done."""
    return out / f"{number:06d}.json"


def tiles_of(out: Path, number: int) -> Path:
    """The table of a group's tiles."""
    return out / f"{number:06d}.tiles.parquet"


def journal_of(out: Path, number: int) -> Path:
    """What is done of a group."""
    return out / f".{number:06d}.journal"


def now_of(out: Path, number: int) -> Path:
    """The slide that is being read, in case the reader ends its process."""
    return out / f".{number:06d}.now"


def shard_name(number: int, part: int, *, pixels: bool = True) -> str:
    """The name of a group's shard: 000012.tar, then 000012-1.tar."""
    more = f"-{part}" if part else ""
    return f"{number:06d}{more}{'.tar' if pixels else '.xy'}"


def read_record(out: Path, number: int) -> dict[str, Any] | None:
    """The record of a group; None where it is not done.

    Raises:
        StoreError: It cannot be read.
    """
    file = record_of(out, number)
    if not file.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{file} is damaged ({error}): remove it, and the group is packed again"
        ) from error
    return found


def sha256_of_file(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, hashlib.sha256).hexdigest()


@dataclass
class Tar:
    """The shards of a group, one after the other, each resumed at a given length.

    Attributes:
        out: The folder.
        number: Of the group.
        settings: With `pixels` a tar of tiles, otherwise a file of positions.
        part: The shard that is written.
        length: Its bytes.
        images: Its tiles.
    """

    out: Path
    number: int
    settings: Settings
    part: int
    length: int
    images: int
    _stream: BinaryIO | None = None
    _start: tuple[int, int] = field(default=(0, 0))

    def begin_slide(self) -> None:
        """A slide begins: in a new shard where this one is full.

        Raises:
            StoreError: A file cannot be opened.
        """
        if self.length >= self.settings.shard_bytes:
            self.close()
            self.part, self.length, self.images = self.part + 1, 0, 0
        self._start = (self.length, self.images)

    def add(self, name: str, at: tuple[int, int], data: bytes) -> None:
        """Append a tile, or its position.

        Raises:
            StoreError: The disk is full.
        """
        if self.settings.pixels:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _MODE
            header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            data = header + data + b"\0" * (-len(data) % _BLOCK)
        else:
            data = POSITION.pack(*at)
        stream = self._open()
        with storing(self._partial()):
            stream.write(data)
        self.length += len(data)
        self.images += 1

    def cut(self) -> None:
        """Remove what the slide that failed has written."""
        if self._start != (self.length, self.images):
            stream = self._open()
            with storing(self._partial()):
                stream.flush()
                stream.truncate(self._start[0])
                stream.seek(self._start[0])
            self.length, self.images = self._start

    def sync(self) -> None:
        """Make what was written durable."""
        if self._stream is not None:
            with storing(self._partial()):
                self._stream.flush()
                os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with storing(self._partial()):
                stream.close()

    def finish(self, part: int, end: int, images: int) -> dict[str, Any]:
        """Complete a shard under its name, and read it again.

        Args:
            part: Which.
            end: The bytes of its tiles.
            images: The tiles that it must have.

        Returns:
            Its name, bytes, images and sha256.

        Raises:
            StoreError: It does not read as it was written.
        """
        final = self.out / shard_name(self.number, part, pixels=self.settings.pixels)
        partial = final.with_name(f".{final.name}.partial")
        with storing(final):
            if partial.exists():  # not where this was killed after the rename
                with partial.open("r+b") as stream:
                    stream.truncate(end)
                    stream.seek(end)
                    stream.write(self._ending(end))
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(partial, final)
            size = final.stat().st_size
            digest = sha256_of_file(final)
        found = size // POSITION.size
        if self.settings.pixels:
            write_index(final)
            found = len(ranges_of(final))
        if found != images:
            raise StoreError(
                f"{final} has {found} tiles and not {images}: the disk does not keep what is"
                f" written. Remove {self.number:06d}* and .{self.number:06d}* there, and run again"
            )
        return {"name": final.name, "bytes": size, "images": images, "sha256": digest}

    def remove_empty(self) -> None:
        """Remove a shard that was begun for slides that gave no tiles."""
        self._partial().unlink(missing_ok=True)

    def _ending(self, length: int) -> bytes:
        """The empty blocks that end a tar of this length."""
        if not self.settings.pixels:
            return b""
        return b"\0" * (2 * _BLOCK + -(length + 2 * _BLOCK) % tarfile.RECORDSIZE)

    def _open(self) -> BinaryIO:
        """The unfinished shard, cut to its length."""
        if self._stream is None:
            partial = self._partial()
            with storing(partial):
                self._stream = partial.open("r+b" if partial.exists() else "w+b")
                if self._stream.seek(0, 2) < self.length:
                    raise StoreError(
                        f"{partial} is shorter than its journal says: remove {self.number:06d}* and"
                        f" .{self.number:06d}* there, and run again"
                    )
                self._stream.truncate(self.length)
                self._stream.seek(self.length)
        return self._stream

    def _partial(self) -> Path:
        name = shard_name(self.number, self.part, pixels=self.settings.pixels)
        return self.out / f".{name}.partial"
