"""The identity of an input: how a later run decides whether it was done before.

The rule is the same for images and slides. The same path with the same size and times is the same
file, which is not read again. Where one of them differs, the content decides: a file that was moved
or copied, or has a new date, counts as done; one whose content changed does not. Paths are those
that the user typed, made absolute; links are not resolved.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pathencoder.errors import ConfigError, SlideError
from pathencoder.remote.objects import is_remote
from pathencoder.slides.dicom import files_of_slide
from pathencoder.walk import printable

_PACKED = struct.Struct("<qqq16s")
TAG_BYTES = _PACKED.size
_WHOLE = 64 << 20  # bytes up to which a slide is hashed whole
_END, _SAMPLE, _SAMPLES = 1 << 20, 64 << 10, 62


class Stat(NamedTuple):
    """The size and times of a file.

    Attributes:
        size: Bytes.
        modified: Last change of the content, in nanoseconds.
        changed: Last change of the inode, in nanoseconds. It also changes when a program that
            copies or unpacks sets `modified` back.
    """

    size: int
    modified: int
    changed: int


class Stamp(NamedTuple):
    """The size, times and content hash of the image that a row was made from."""

    stat: Stat
    content: bytes

    def pack(self) -> bytes:
        """The stamp as `TAG_BYTES` bytes."""
        return _PACKED.pack(*self.stat, self.content)

    @classmethod
    def unpack(cls, data: bytes) -> Stamp:
        """The stamp that `pack` made these bytes of."""
        size, modified, changed, content = _PACKED.unpack(data)
        return cls(Stat(size, modified, changed), content)


@dataclass(frozen=True)
class SlideIdentity:
    """The identity of a slide.

    Attributes:
        path: As the user typed it, absolute, as printable text.
        stat: Of all its files: the sum of the sizes, the latest times.
        content: Hash of all bytes up to 64 MB, of samples beyond; hexadecimal.
    """

    path: str
    stat: Stat
    content: str


@dataclass(frozen=True)
class Origin:
    """Where a slide is from that was copied here to be read, and its version there.

    Attributes:
        url: Of the slide.
        stat: Bytes, the latest change, and in place of a change of the inode a number made of the
            ETags.
    """

    url: str
    stat: Stat


def place_of(path: str | Path) -> str:
    """A path as identities hold it: absolute, links not resolved, printable; a URL as it is."""
    return printable(path if is_remote(path) else os.path.abspath(path))


def stat_of(path: Path) -> Stat:
    """Size and times of a file; (-1, 0, 0) where it cannot be found."""
    try:
        found = path.stat()
    except OSError:
        return Stat(-1, 0, 0)
    return Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def hash_bytes(data: bytes) -> bytes:
    """16 bytes of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).digest()


def hash_file(path: Path) -> bytes:
    """`hash_bytes` of a file's content; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return b""


def identify_slide(path: Path, origin: Origin | None = None) -> SlideIdentity:
    """The identity of a slide.

    Args:
        path: A file, a file with a folder or files beside it (MIRAX, VMS, VSI, DICOM), or a folder.
        origin: Where it was copied from.

    Raises:
        SlideError: A file cannot be read, or a folder of DICOM files holds several slides.
    """
    with _reading(path):
        content = _content_of(files_of(path))
    place, stat = (origin.url, origin.stat) if origin else (place_of(path), slide_stat(path))
    return SlideIdentity(place, stat, content)


def earlier_content(path: Path) -> str | None:
    """The content of a slide as earlier versions hashed it; None where that was the same.

    Of a VSI slide they read the .vsi file alone, which holds no pixels.

    Raises:
        SlideError: The file cannot be read.
    """
    if path.suffix.lower() != ".vsi" or path.is_dir():
        return None
    with _reading(path):
        return _content_of([path])


def _content_of(files: Sequence[Path]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for file in files:
        if len(files) > 1:
            hashed.update(os.fsencode(file.name) + b"\0")
        for block in _samples(file, share=len(files)):
            hashed.update(block)
    return hashed.hexdigest()


def slide_stat(path: Path) -> Stat:
    """The sum of the sizes and the latest times of the files of a slide.

    Raises:
        SlideError: A folder cannot be read.
    """
    with _reading(path):
        stats = [stat_of(file) for file in files_of(path)] or [Stat(-1, 0, 0)]
    return Stat(
        sum(s.size for s in stats), max(s.modified for s in stats), max(s.changed for s in stats)
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Files of a slide may be removed, or a network disk fail, while it is read."""
    try:
        yield
    except SlideError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise SlideError(
            f"{path}: cannot be read ({reason}). Check that it still exists"
        ) from error


def files_of(path: Path) -> Sequence[Path]:
    """The files that make up a slide, sorted by name."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        return [p for p in files if p.suffix.lower() == ".dcm"] or files
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and path.with_suffix("").is_dir():
        return [path, *files_of(path.with_suffix(""))]
    if suffix == ".dcm":
        return sorted(files_of_slide(path)[1]) or [path]
    if suffix in (".vms", ".vmu"):
        beside = (p for p in path.parent.iterdir() if p.name.startswith(path.stem) and p.is_file())
        return sorted({path, *beside})
    if suffix == ".vsi":  # its pixels
        beside = (path.parent / f"_{path.stem}_").rglob("*")
        return [path, *sorted(p for p in beside if p.suffix.lower() == ".ets" and p.is_file())]
    return [path]


def refuse_input(picture: Path, slide: Path) -> None:
    """Refuse to draw a picture in the place of a slide.

    Args:
        picture: Where the picture goes.
        slide: The slide; a remote one is never replaced.

    Raises:
        ConfigError: The picture is a file of the slide.
    """
    if is_remote(slide) or not picture.exists():
        return
    for file in parts_of(slide):
        if file.exists() and file.samefile(picture):
            raise ConfigError(
                f"the picture {printable(picture)} would replace {printable(file)}, a file of the"
                " slide: choose another --out (picture= in Python)"
            )


def parts_of(path: Path) -> Sequence[Path]:
    """As `files_of`; of a slide that cannot be read, its path alone."""
    try:
        return [path, *files_of(path)]
    except OSError:  # SlideError is one, too
        return [path]


def _samples(file: Path, *, share: int) -> Iterator[bytes]:
    """A file's size and all of its bytes, or samples; `share` is the slide's number of files."""
    size = file.stat().st_size
    yield size.to_bytes(8, "little")
    with file.open("rb") as stream:
        if size <= _WHOLE // share:
            while block := stream.read(_END):
                yield block
            return
        end, samples = _END // share, _SAMPLES // share
        step = (size - 2 * end) // (samples + 1)
        middle = [(end + i * step, _SAMPLE // share) for i in range(1, samples + 1)]
        for start, length in [(0, end), *middle, (size - end, end)]:
            stream.seek(start)
            yield stream.read(length)
