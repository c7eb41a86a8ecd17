"""Image files to one feature file with their keys; only what is new or has changed is embedded."""

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
from pathencoder.features import store
from pathencoder.features.identity import (
    TAG_BYTES,
    Stamp,
    hash_bytes,
    hash_file,
    place_of,
    stat_of,
)
from pathencoder.features.job import Outcome, Progress, Work, check_recipe, partial_path, silent
from pathencoder.features.provenance import Recipe, Settings, device_used, tile_scale, tiles_recipe
from pathencoder.features.store import Content, Failure, Rows
from pathencoder.files import Mismatch
from pathencoder.formats.file_kinds import FOREIGN_SUFFIXES, SLIDE_SUFFIXES
from pathencoder.images import decode_image, open_image
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

Named = Sequence[tuple[str, Path]]  # key and file of each image
_IN_MEMORY = 64 << 20  # bytes up to which a file is read once, for its hash and its pixels


def encode_tiles(
    encoder: Encoder,
    source: Path,
    images: Named,
    file: Path,
    settings: Settings,
    *,
    keep_others: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Embed image files into a feature file; go on where an earlier run stopped.

    An image is known by its key and by what `slides.identity` says of its file. Known ones are not
    embedded again, changed ones are embedded anew, those that failed before are tried again.

    Args:
        encoder: The encoder.
        source: The folder that the keys are relative to.
        images: Key and path of each image; every key once.
        file: The feature file.
        settings: How to encode.
        keep_others: Rows of other images of the same folder stay in the file, else they go.
        progress: Called with (done, total).

    Returns:
        What became of it. Single bad images are listed in it, and in the file.

    Raises:
        Mismatch: The file is of another folder with other contents, of other settings, or damaged.
        StoreError: The file cannot be written.
        ConfigError: The settings do not fit the encoder.
        ImageError: No image can be read.
    """
    started = time.monotonic()
    recipe = tiles_recipe(encoder, settings)
    batch = _Batch(source, images)
    earlier = None if settings.overwrite else _earlier(file, recipe)
    notes = _check_folder(earlier, batch, file) if earlier else []
    if earlier is not None and not partial_path(file).exists():
        failures = _nothing_new(earlier, batch, keep_others=keep_others)
        if failures is not None:
            count = len(images) - len(failures)
            return Outcome(
                source,
                "before",
                file,
                count,
                0,
                time.monotonic() - started,
                failures,
                notes,
                batch.parts(keep_others=keep_others),
            )
    facts = {
        "source": printable(source.name),
        "source_path": batch.folder,
        "device": device_used(encoder),
    }
    with Work(
        encoder, file, settings, recipe.settings(), progress, facts=facts, tag_bytes=TAG_BYTES
    ) as work:
        _check_begun(work, batch)
        others = earlier.others(batch) if earlier and keep_others else {}
        if earlier is not None:
            _take_over(earlier, batch, others, work)
        failures = _embed(encoder, batch, work, settings)
        bad = {f.part for f in failures}
        good = [key for key, _ in images if key not in bad]
        if images and not good:
            raise ImageError(
                f"{source}: none of its {len(images)} images can be read, the first:"
                f" {failures[0].reason}"
            )
        stamps = [
            *others.values(),
            *(Stamp(batch.stats[key], _stamp(work, key).content) for key in good),
        ]
        left = (
            [f for f in earlier.failures if f.part not in batch.stats]
            if earlier and keep_others
            else []
        )
        content = Content(recipe, [*left, *failures], facts, keys=[*others, *good], stamps=stamps)
        new = work.finish(content, [_id(key) for key in content.keys])
    return Outcome(
        source,
        "done",
        file,
        len(good),
        new,
        time.monotonic() - started,
        failures,
        notes,
        batch.parts(keep_others=keep_others),
    )


class _Batch:
    """The images of one run, and what they are known by. Hashes are computed when asked for, once."""

    def __init__(self, source: Path, images: Named) -> None:
        self.source, self.images = source, images
        self.folder = place_of(source)
        self.paths = dict(images)
        self.stats = {key: stat_of(path) for key, path in images}
        self.hashes: dict[str, bytes] = {}

    def is_same(self, key: str, known: Stamp, *, folder: str) -> bool:
        """Whether an image is the one that a row of a file made from `folder` is of."""
        stat = self.stats[key] if key in self.stats else stat_of(self._path(key))
        if folder == self.folder and stat == known.stat:
            return True
        return stat.size == known.stat.size and self._hash(key) == known.content

    def read(self, named: tuple[str, Path]) -> Pixels:
        """The pixels of an image; its hash is that of the bytes that were decoded."""
        key, path = named
        if (
            self.stats[key].size > _IN_MEMORY
            or path.suffix.lower() in SLIDE_SUFFIXES | FOREIGN_SUFFIXES
        ):
            pixels = open_image(path, str(path))
            self.hashes[key] = hash_file(path)
            return pixels
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from error
        self.hashes[key] = hash_bytes(data)
        return decode_image(data, str(path))

    def parts(self, *, keep_others: bool) -> frozenset[str] | None:
        """The keys, where they are not all of their folder."""
        return frozenset(self.paths) if keep_others else None

    def _hash(self, key: str) -> bytes:
        if key not in self.hashes:
            self.hashes[key] = hash_file(self._path(key))
        return self.hashes[key]

    def _path(self, key: str) -> Path:
        return self.paths.get(key, self.source / key)


@dataclass(frozen=True)
class _Earlier:
    """A finished file of the same recipe. known: stamps of its rows by key.

    take(places) reads rows.
    """

    folder: str
    known: dict[str, Stamp]
    take: Callable[[Sequence[int]], Rows]
    failures: list[Failure]

    @cached_property
    def failed(self) -> set[str]:
        return {f.part for f in self.failures}

    def others(self, batch: _Batch) -> dict[str, Stamp]:
        return {key: stamp for key, stamp in self.known.items() if key not in batch.stats}


def _earlier(file: Path, recipe: Recipe) -> _Earlier | None:
    if not file.exists():
        return None
    check_recipe(file, recipe)
    parts = store.read_parts(file)
    return _Earlier(parts.folder, parts.known, parts.take, parts.failures)


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
                f" differ ({key}): nothing is overwritten. Choose another --out, or --overwrite"
            )
    return [f"goes on with what was made from {earlier.folder}, whose contents are the same"]


def _check_begun(work: Work, batch: _Batch) -> None:
    """Raises Mismatch where the unfinished rows are of another folder whose contents differ."""
    folder = work.journal.facts.get("source_path", batch.folder)
    if folder == batch.folder:
        return
    same = sum(_begun(work, batch, key) for key in batch.paths)
    if same < len(work.journal):
        raise Mismatch(
            f"{work.journal.path} holds unfinished work on {folder}, not on {batch.folder}, whose"
            " contents differ. Choose another --out, finish that first, or start anew with"
            " --overwrite"
        )


def _begun(work: Work, batch: _Batch, key: str) -> bool:
    """Whether the journal has the row of an image as it is now."""
    folder = work.journal.facts.get("source_path", batch.folder)
    return _id(key) in work.journal and batch.is_same(key, _stamp(work, key), folder=folder)


def _take_over(earlier: _Earlier, batch: _Batch, others: Mapping[str, Stamp], work: Work) -> None:
    """Rows of the finished file that still hold become rows of this work."""
    wanted = []
    for place, (key, stamp) in enumerate(earlier.known.items()):
        mine = (
            key in batch.paths
            and not _begun(work, batch, key)
            and batch.is_same(key, stamp, folder=earlier.folder)
        )
        if mine or (key in others and _id(key) not in work.journal):
            now = Stamp(batch.stats.get(key, stamp.stat), stamp.content)
            wanted.append((place, _id(key), now.pack()))
    work.take_over(wanted, earlier.take)


def _embed(encoder: Encoder, batch: _Batch, work: Work, settings: Settings) -> list[Failure]:
    def tag(named: tuple[str, Path]) -> bytes:
        return Stamp(batch.stats[named[0]], batch.hashes[named[0]]).pack()

    failed = work.fill(
        [named for named in batch.images if not _begun(work, batch, named[0])],
        batch.read,
        lambda named: _id(named[0]),
        tag,
        total=len(batch.images),
        mpp=tile_scale(encoder, settings),
    )
    return [_failure(key, path, error) for (key, path), error in failed]


def _nothing_new(earlier: _Earlier, batch: _Batch, *, keep_others: bool) -> list[Failure] | None:
    """The failures of an earlier file that still stands for these images.

    None where there is work: an image that is new, has changed, is gone, or failed before and can
    be read now.
    """
    known = earlier.known
    missing = [
        named
        for named in batch.images
        if named[0] not in known
        or not batch.is_same(named[0], known[named[0]], folder=earlier.folder)
    ]
    gone = len(known) - (len(batch.images) - len(missing))
    if (gone and not keep_others) or any(key not in earlier.failed for key, _ in missing):
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


def _failure(key: str, path: Path, error: Exception) -> Failure:
    return Failure(key, printable(str(error).removeprefix(f"{path}: ")), type(error).__name__)


def _stamp(work: Work, key: str) -> Stamp:
    return Stamp.unpack(work.journal.tag(_id(key)))


def _id(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
