"""Image files to one feature file with their keys; only new and changed images are embedded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.arrays import Pixels
from pathencoder.errors import ImageError
from pathencoder.features import finished
from pathencoder.features.continued import continued, with_runtime_of
from pathencoder.features.finished import ANEW, check_provenance
from pathencoder.features.identity import (
    TAG_BYTES,
    Stamp,
    hash_bytes,
    hash_file,
    place_of,
    stat_of,
)
from pathencoder.features.job import Job, Outcome, Progress, partial_path, silent
from pathencoder.features.provenance import (
    Provenance,
    Settings,
    device_used,
    tile_scale,
    tiles_provenance,
)
from pathencoder.features.store import Content, Failure, Rows
from pathencoder.files import Mismatch
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, SLIDE_SUFFIXES
from pathencoder.images import decode_image, open_image
from pathencoder.pace import Pace
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

Named = Sequence[tuple[str, Path]]  # key and file of each image
_IN_MEMORY = 64 << 20  # bytes up to which a file is read once, for its hash and its pixels


def tiles_to_file(
    encoder: Encoder,
    source: Path,
    images: Named,
    file: Path,
    settings: Settings,
    *,
    keep_others: bool = False,
    unread: Sequence[str] = (),
    progress: Progress = silent,
    pace: Pace | None = None,
) -> Outcome:
    """Embed image files into a feature file; resume an earlier run.

    An image is identified by its key and by the size, times and content of its file
    (features/identity.py). An image that has its row already is not embedded again, a changed one
    is, and one that failed before is tried again.

    Args:
        encoder: The encoder.
        source: The folder that the keys are relative to.
        images: Key and path of each image; every key once.
        file: The feature file.
        settings: How to encode.
        keep_others: Keep the rows of other images of the same folder; else they are removed.
        unread: Keys of files and folders in it that cannot be read now: rows of images there are
            kept, too.
        progress: Called with (done, total).
        pace: Where the times are counted.

    Returns:
        The status, the file, the number of rows, and the images that failed (also listed in the
        file).

    Raises:
        Mismatch: The file is of another folder with other contents, of other settings, or damaged
            (its rows are compared with their checksum when they are copied).
        Busy: Another process is writing the file.
        StoreError: The file cannot be written.
        ConfigError: The settings do not fit the encoder.
        ImageError: No image can be read.
    """
    started, pace = time.monotonic(), pace or Pace()
    provenance = with_runtime_of(file, tiles_provenance(encoder, settings), settings)
    batch = _Batch(source, images, keep_others=keep_others, unread=unread)

    def outcome(status: str, failures: list[Failure], notes: list[str], new: int = 0) -> Outcome:
        rows, seconds = len(images) - len(failures), time.monotonic() - started
        return Outcome(
            source, status, file, rows, new, seconds, failures, notes, batch.parts(), pace=pace
        )

    earlier, notes = _earlier(file, provenance, settings, batch)
    if earlier is not None and not partial_path(file).exists():
        failures = _nothing_new(earlier, batch)
        if failures is not None:
            return outcome("before", failures, notes)
    settings = continued(encoder, settings, provenance, file)
    facts = {
        "source": printable(source.name),
        "source_path": batch.folder,
        "device": device_used(encoder),
    }
    header = provenance.settings()
    with Job(encoder, file, settings, header, progress, facts=facts, tag_bytes=TAG_BYTES) as job:
        # another process may have finished it meanwhile
        earlier, notes = _earlier(file, provenance, settings, batch)
        _check_begun(job, batch)
        if earlier is not None:
            _take_over(earlier, batch, job)
        failures = _embed(encoder, batch, job, settings, pace)
        content = _content(job, batch, earlier, failures, provenance=provenance, facts=facts)
        new = job.finish(content, [_id(key) for key in content.keys])
    return outcome("done", failures, [*notes, *pace.notes], new)


class _Batch:
    """The images of one run and their identities. A hash is computed once, when it is needed.

    Args:
        source: The folder that the keys are relative to.
        images: Key and path of each image.
        keep_others: Whether rows of other images of the folder stay in the file.
        unread: Keys of files and folders whose images cannot be seen now; their rows stay, too.
    """

    def __init__(
        self, source: Path, images: Named, *, keep_others: bool, unread: Sequence[str]
    ) -> None:
        self.source, self.images = source, images
        self._keep_others, self._unread = keep_others, tuple(unread)
        self.folder = place_of(source)
        self.paths = dict(images)
        self.stats = {key: stat_of(path) for key, path in images}
        self.hashes: dict[str, bytes] = {}

    def is_same(self, key: str, known: Stamp, *, folder: str) -> bool:
        """Whether an image is still the one that a row was made from.

        Args:
            key: Of the image.
            known: The size, times and hash that were kept with the row.
            folder: The folder that the row's file was made from.
        """
        stat = self.stats[key] if key in self.stats else stat_of(self._path(key))
        if folder == self.folder and stat == known.stat:
            return True
        return stat.size == known.stat.size and self._hash(key) == known.content

    def read(self, named: tuple[str, Path]) -> Pixels:
        """The pixels of an image, uint8 [H, W, 3]; the bytes that are decoded are also hashed."""
        key, path = named
        pixels, self.hashes[key] = read_hashed(path, self.stats[key].size)
        return pixels

    def parts(self) -> frozenset[str] | None:
        """The keys, or None where they are all images of their folder."""
        return frozenset(self.paths) if self._keep_others or self._unread else None

    def keeps(self, key: str) -> bool:
        """Whether the row of an image that is not among these stays in the file."""
        return key not in self.paths and (self._keep_others or self.is_unread(key))

    def is_unread(self, key: str) -> bool:
        """Whether an image lies where nothing can be read now."""
        return any(key == place or key.startswith(f"{place}/") for place in self._unread)

    def _hash(self, key: str) -> bytes:
        if key not in self.hashes:
            self.hashes[key] = hash_file(self._path(key))
        return self.hashes[key]

    def _path(self, key: str) -> Path:
        return self.paths.get(key, self.source / key)


def read_hashed(path: Path, size: int | None = None) -> tuple[Pixels, bytes]:
    """Decode an image file, and hash the bytes that were decoded.

    Args:
        path: The file.
        size: Its bytes, where they are known.

    Returns:
        uint8 [H, W, 3], and the content hash of features/identity.py.

    Raises:
        ImageError: The file cannot be read, or is not one image.
    """
    size = stat_of(path).size if size is None else size
    if size > _IN_MEMORY or path.suffix.lower() in SLIDE_SUFFIXES | FOREIGN_SUFFIXES:
        return open_image(path, str(path)), hash_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_image(data, str(path)), hash_bytes(data)


@dataclass(frozen=True)
class _Earlier:
    """A finished file of the same provenance; the fields are those of `finished.Parts`."""

    folder: str
    known: dict[str, Stamp]
    take: Callable[[Sequence[int]], Rows]
    failures: list[Failure]

    @cached_property
    def failed(self) -> set[str]:
        return {f.part for f in self.failures}

    def others(self, batch: _Batch) -> dict[str, Stamp]:
        """The rows of other images, where they are kept."""
        return {key: stamp for key, stamp in self.known.items() if batch.keeps(key)}

    def other_failures(self, batch: _Batch) -> list[Failure]:
        """The failures of other images, where they are kept."""
        return [f for f in self.failures if batch.keeps(f.part)]


def _earlier(
    file: Path, provenance: Provenance, settings: Settings, batch: _Batch
) -> tuple[_Earlier | None, list[str]]:
    """The finished file that is continued, and notes on it; None where there is none.

    Raises Mismatch where it has another provenance, or is of another folder with other contents.
    """
    if settings.overwrite or not file.exists():
        return None, []
    check_provenance(file, provenance, layout="")
    parts = finished.read_parts(file)
    earlier = _Earlier(parts.folder, parts.known, parts.take, parts.failures)
    return earlier, [*_check_folder(earlier, batch, file), *_kept_unread(earlier, batch)]


def _kept_unread(earlier: _Earlier, batch: _Batch) -> list[str]:
    """A note where rows stay because their images cannot be seen now."""
    count = sum(batch.is_unread(key) for key in earlier.known if key not in batch.paths)
    if not count:
        return []
    return [f"rows of images in places that cannot be read now are kept: {count:,}"]


def _check_folder(earlier: _Earlier, batch: _Batch, file: Path) -> list[str]:
    """A note where a file was made from another folder with the same contents.

    Raises Mismatch where they differ.
    """
    if earlier.folder == batch.folder:
        return []
    for key, stamp in earlier.known.items():
        if not batch.is_same(key, stamp, folder=earlier.folder):
            raise Mismatch(
                f"{file} was made from {earlier.folder}, not from {batch.folder}, whose contents"
                f" differ ({key}): nothing is overwritten. {ANEW}"
            )
    return [f"rows that were made from {earlier.folder}, whose contents are the same, are kept"]


def _check_begun(job: Job, batch: _Batch) -> None:
    """Raises Mismatch where the unfinished rows are of another folder whose contents differ."""
    folder = job.journal.facts.get("source_path", batch.folder)
    if folder == batch.folder:
        return
    same = sum(_begun(job, batch, key) for key in batch.paths)
    if same < len(job.journal):
        raise Mismatch(
            f"{job.journal.path} holds the unfinished rows of {folder}, not of {batch.folder},"
            f" whose contents differ. Finish that first. {ANEW}"
        )


def _begun(job: Job, batch: _Batch, key: str) -> bool:
    """Whether the journal has the row of an image, and the image has not changed since."""
    folder = job.journal.facts.get("source_path", batch.folder)
    return _id(key) in job.journal and batch.is_same(key, _stamp(job, key), folder=folder)


def _take_over(earlier: _Earlier, batch: _Batch, job: Job) -> None:
    """Copy the rows of the finished file that are still valid into the journal."""
    wanted, others = [], earlier.others(batch)
    for place, (key, stamp) in enumerate(earlier.known.items()):
        mine = (
            key in batch.paths
            and not _begun(job, batch, key)
            and batch.is_same(key, stamp, folder=earlier.folder)
        )
        if mine or (key in others and _id(key) not in job.journal):
            now = Stamp(batch.stats.get(key, stamp.stat), stamp.content)
            wanted.append((place, _id(key), now.pack()))
    job.take_over(wanted, earlier.take)


def _embed(
    encoder: Encoder, batch: _Batch, job: Job, settings: Settings, pace: Pace
) -> list[Failure]:
    def tag(named: tuple[str, Path]) -> bytes:
        return Stamp(batch.stats[named[0]], batch.hashes[named[0]]).pack()

    failed = job.fill(
        [named for named in batch.images if not _begun(job, batch, named[0])],
        batch.read,
        lambda named: _id(named[0]),
        tag,
        total=len(batch.images),
        mpp=tile_scale(encoder, settings),
        pace=pace,
    )
    return [_failure(key, path, error) for (key, path), error in failed]


def _content(
    job: Job,
    batch: _Batch,
    earlier: _Earlier | None,
    failures: list[Failure],
    *,
    provenance: Provenance,
    facts: Mapping[str, str],
) -> Content:
    """What the file says of its rows: those of others first, then those of this run.

    Raises ImageError where no image could be read.
    """
    bad = {f.part for f in failures}
    good = [key for key in batch.paths if key not in bad]
    if batch.images and not good:
        raise _none_readable(batch.source, batch, failures)
    others = earlier.others(batch) if earlier else {}
    left = earlier.other_failures(batch) if earlier else []
    mine = [Stamp(batch.stats[key], _stamp(job, key).content) for key in good]
    return Content(
        provenance,
        [*left, *failures],
        facts,
        keys=[*others, *good],
        stamps=[*others.values(), *mine],
    )


def _nothing_new(earlier: _Earlier, batch: _Batch) -> list[Failure] | None:
    """The failures of an earlier file, where it needs no change.

    None where it does: an image is new, has changed, is gone, or failed before and can be read now.
    """
    known = earlier.known
    missing = [
        named
        for named in batch.images
        if named[0] not in known
        or not batch.is_same(named[0], known[named[0]], folder=earlier.folder)
    ]
    gone = any(key not in batch.paths and not batch.keeps(key) for key in known)
    if gone or any(key not in earlier.failed for key, _ in missing):
        return None
    failures = []
    for key, path in missing:
        try:
            batch.read((key, path))
        except ImageError as error:
            failures.append(_failure(key, path, error))
        else:
            return None
    return failures


def _none_readable(source: Path, batch: _Batch, failures: Sequence[Failure]) -> ImageError:
    (_, first), *others = batch.images
    reason = failures[0].reason
    if not others:
        return ImageError(f"{first}: {reason}")
    return ImageError(
        f"{source}: none of its {len(others) + 1} images can be read, the first: {reason}"
    )


def _failure(key: str, path: Path, error: Exception) -> Failure:
    return Failure(key, printable(str(error).removeprefix(f"{path}: ")), type(error).__name__)


def _stamp(job: Job, key: str) -> Stamp:
    return Stamp.unpack(job.journal.tag(_id(key)))


def _id(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
