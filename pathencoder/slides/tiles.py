"""Image files to one feature file with their keys; only what is new or has changed is embedded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.errors import ImageError
from pathencoder.images import open_image
from pathencoder.slides import store
from pathencoder.slides.recipe import Recipe, Settings, tile_scale, tiles_recipe
from pathencoder.slides.store import Content, Failure, Rows
from pathencoder.slides.work import Outcome, Progress, Work, check_recipe, partial_path, silent, size_of

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

Named = Sequence[tuple[str, Path]]  # key and file of each image


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
    """Embed image files, given as (key, path), into `file`. An image is known by its key and size in bytes; known ones are not embedded
    again, those that failed before are tried again. Rows of other images in the file go, or stay with `keep_others`.

    Raises StoreError, ConfigError, and ImageError where no image can be read. Single bad ones are listed in the outcome and the file.
    """
    started = time.monotonic()
    recipe = tiles_recipe(encoder, settings)
    sizes = {key: size_of(path) for key, path in images}
    ids = {key: _text_id(key, size) for key, size in sizes.items()}
    earlier = None if settings.overwrite else _earlier(file, recipe)
    if earlier is not None:
        failures = _nothing_new(earlier, images, ids, keep_others=keep_others)
        if failures is not None and not partial_path(file).exists():
            return Outcome(source, "before", file, len(images) - len(failures), 0, time.monotonic() - started, failures)
    with Work(encoder, file, settings, recipe.settings(), progress) as work:
        others: dict[str, int] = {}
        if earlier is not None:
            work.take_over(earlier.ids, earlier.take)
            others = {key: size for key, size in earlier.known if keep_others and key not in ids}
        failures = _embed(encoder, images, ids, work, settings)
        good = [key for key, _ in images if ids[key] in work.journal]
        if images and not good:
            raise ImageError(f"{source}: none of its {len(images)} images can be read, the first: {failures[0].reason}")
        rows = [(key, size) for key, size in others.items()] + [(key, sizes[key]) for key in good]
        content = Content(recipe, failures, {"source": source.name}, keys=[key for key, _ in rows], sizes=[size for _, size in rows])
        new = work.finish(content, [_text_id(key, size) for key, size in rows])
    return Outcome(source, "done", file, len(good), new, time.monotonic() - started, failures)


@dataclass(frozen=True)
class _Earlier:
    """A finished file of the same recipe. known: (key, size) of its rows; take(places) reads rows; failed: keys that failed."""

    known: list[tuple[str, int]]
    take: Callable[[Sequence[int]], Rows]
    failed: set[str]

    @property
    def ids(self) -> list[int]:
        return [_text_id(key, size) for key, size in self.known]


def _earlier(file: Path, recipe: Recipe) -> _Earlier | None:
    if not file.exists():
        return None
    check_recipe(file, recipe)
    known, take = store.read_parts(file)
    return _Earlier(known, take, {f.part for f in store.read_facts(file).failures})


def _embed(encoder: Encoder, images: Named, ids: Mapping[str, int], work: Work, settings: Settings) -> list[Failure]:
    failed = work.fill(
        [named for named in images if ids[named[0]] not in work.journal],
        lambda named: open_image(named[1], str(named[1])),
        lambda named: ids[named[0]],
        total=len(images),
        mpp=tile_scale(encoder, settings),
    )
    return [_failure(key, path, error) for (key, path), error in failed]


def _nothing_new(earlier: _Earlier, images: Named, ids: Mapping[str, int], *, keep_others: bool) -> list[Failure] | None:
    """The failures of an earlier file that still stands for these images. None where there is work: an image that is new, has changed, is
    gone, or failed before and can be read now."""
    there = set(earlier.ids)
    missing = [named for named in images if ids[named[0]] not in there]
    gone = len(there) - (len(images) - len(missing))
    if (gone and not keep_others) or any(key not in earlier.failed for key, _ in missing):
        return None
    failures = []
    for key, path in missing:
        try:
            open_image(path, str(path))
        except ImageError as error:
            failures.append(_failure(key, path, error))
        else:
            return None
    return failures


def _failure(key: str, path: Path, error: Exception) -> Failure:
    return Failure(key, str(error).removeprefix(f"{path}: "), type(error).__name__)


def _text_id(key: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{key}\0{size}".encode(), digest_size=8).digest(), "little")
