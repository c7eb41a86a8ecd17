"""Images to rows, in order and in bounded memory.

Threads decode and resize; an image that cannot be read costs only its own row.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import numpy as np
from torch import Tensor
from tqdm.std import tqdm

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, ImageError, PathEncoderError
from pathencoder.images import Item, Key
from pathencoder.mpp import check_mpp
from pathencoder.runtime import RUNTIMES, BatchSize, Rows, Runner
from pathencoder.transforms import Transform

log = logging.getLogger(__name__)

Scales: TypeAlias = float | Iterable[float | None] | None
OnError: TypeAlias = Literal["raise", "nan"]
Progress: TypeAlias = "bool | Literal['auto']"
_GROUPS_AHEAD = 2  # decoded while an accelerator computes


class Options(TypedDict, total=False):
    """The options that `Encoder.encode` and `Encoder.stream` share; see `Encoder.encode`."""

    mpp: Scales
    output: str
    batch_size: BatchSize
    precision: str
    runtime: str
    workers: int | None
    progress: Progress
    on_error: OnError


@dataclass(frozen=True)
class Settings:
    """How a network is read and run; see `Encoder.encode`."""

    output: str = "embedding"
    batch_size: BatchSize = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a runtime that there is not."""
        if self.runtime not in RUNTIMES:
            raise ConfigError(f"runtime={self.runtime!r}: one of {', '.join(RUNTIMES)}")


@dataclass(frozen=True)
class Result:
    """The result of one image.

    Attributes:
        key: Path relative to the given folder, else the index.
        row: float32; NaN everywhere where the image cannot be read.
        error: Why it cannot be read; None where it was.
    """

    key: Key
    row: Rows
    error: ImageError | None = None


Found: TypeAlias = Generator[Result, None, None]  # closing it ends the decoding threads


@dataclass(frozen=True)
class _Group:
    items: Sequence[Item]
    tiles: Sequence[Future[Pixels]]


def results(
    items: Iterable[tuple[Item, float | None]],
    transform: Transform,
    runner: Runner,
    *,
    group: int,
    workers: int,
) -> Found:
    """Decode images and run the network: one Result per image, in order.

    On a CPU decoding and network alternate, each with all cores: running both at once, their
    threads would wait for each other at every layer. With an accelerator the next groups are
    decoded while it computes.

    Args:
        items: Images with their micrometres per pixel.
        transform: The encoder's preprocessing.
        runner: Runs the network.
        group: Number of images that are decoded together.
        workers: Number of decoding threads.

    Yields:
        The results.
    """
    on_cpu = runner.device.type == "cpu"
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pathencoder-decode")
    try:
        launched: deque[tuple[_Group, list[ImageError | None], Tensor]] = deque()
        for decoded in _groups(items, transform, pool, group, ahead=0 if on_cpu else _GROUPS_AHEAD):
            tiles, errors = _collect(decoded, transform.spec.input_size)
            launched.append((decoded, errors, runner(tiles)))
            if on_cpu or len(launched) > 1:
                yield from _finish(*launched.popleft())
        for waiting in launched:
            yield from _finish(*waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def with_scales(
    items: Iterable[Item], mpp: Scales, total: int | None
) -> Iterator[tuple[Item, float | None]]:
    """Pair each image with its micrometres per pixel.

    Args:
        items: The images.
        mpp: One number for all images, or one number (or None) per image.
        total: Number of images, where it is known.

    Returns:
        Pairs of an image and its scale.

    Raises:
        ConfigError: `mpp` is not a scale, or holds another number of scales than images.
    """
    if isinstance(mpp, str | bytes | Mapping | Set):
        raise ConfigError(
            f"mpp={mpp!r}: one number, such as 0.25, or a list of numbers, one per image in their"
            " order"
        )
    if mpp is None or not isinstance(mpp, Iterable) or getattr(mpp, "ndim", 1) == 0:
        scale = None if mpp is None else check_mpp(mpp)
        return zip(items, itertools.repeat(scale), strict=False)
    if total is not None and isinstance(mpp, Sized) and len(mpp) != total:
        raise ConfigError(
            f"mpp holds {len(mpp)} values for {total} images: give one number, or one per image"
        )
    return _paired(items, iter(mpp))


def judged(found: Found, on_error: OnError) -> Found:
    """Apply `on_error`: "raise" stops at the first error, "nan" logs each and warns at the end.

    Raises:
        ConfigError: `on_error` is neither.
        ImageError: The first error, for "raise".
    """
    if on_error not in ("raise", "nan"):
        raise ConfigError(f"on_error={on_error!r}: 'raise' or 'nan'")
    return _raising(found) if on_error == "raise" else _counting(found)


def _raising(found: Found) -> Found:
    with contextlib.closing(found):
        for result in found:
            if result.error is not None:
                raise result.error
            yield result


def _counting(found: Found) -> Found:
    seen = failed = 0
    with contextlib.closing(found):
        for result in found:
            seen += 1
            if result.error is not None:
                failed += 1
                log.warning("%s", result.error)
            yield result
    if failed:
        warnings.warn(
            f"{failed} of {seen} images could not be read: their rows are NaN (the log names them)",
            UserWarning,
            stacklevel=2,
        )


def watched(found: Found, total: int | None, progress: Progress) -> Found:
    """The same results with a progress bar; "auto" shows it only on a terminal.

    Raises:
        ConfigError: `progress` is not "auto", True or False.
    """
    if not isinstance(progress, bool) and not (isinstance(progress, str) and progress == "auto"):
        raise ConfigError(f"progress={progress!r}: 'auto', True or False")
    return _with_bar(found, total, hidden=None if progress == "auto" else not progress)


def _with_bar(found: Found, total: int | None, *, hidden: bool | None) -> Found:
    with contextlib.closing(found), tqdm(total=total, unit="img", disable=hidden) as bar:
        for result in found:
            yield result
            bar.update()


class Table:
    """Collects rows in one array, which grows if their number is not known beforehand."""

    def __init__(self, total: int | None) -> None:
        self._capacity = 256 if total is None else total
        self._rows: Rows | None = None
        self._used = 0

    def append(self, row: Rows) -> None:
        """Append a copy of a row. All rows have the shape of the first."""
        if self._rows is None:
            self._rows = np.empty((max(self._capacity, 1), *row.shape), dtype=np.float32)
        if self._used == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._used] = row
        self._used += 1

    def finish(self, width: int) -> Rows:
        """All rows, float32 [N, ...]; [0, width] without rows."""
        if self._rows is None:
            return np.empty((0, width), dtype=np.float32)
        return self._rows if self._used == len(self._rows) else self._rows[: self._used].copy()


def _paired(
    items: Iterable[Item], scales: Iterator[float | None]
) -> Iterator[tuple[Item, float | None]]:
    for item in items:
        try:
            scale = next(scales)
        except StopIteration:
            raise ConfigError(
                f"mpp ended before the images did, at {item.where}: give one number, or one per"
                " image"
            ) from None
        yield item, None if scale is None else check_mpp(scale)


def _groups(
    items: Iterable[tuple[Item, float | None]],
    transform: Transform,
    pool: ThreadPoolExecutor,
    size: int,
    ahead: int,
) -> Iterator[_Group]:
    """Groups whose images are being decoded; `ahead` groups are decoded in advance."""
    started: deque[_Group] = deque()
    remaining = iter(items)
    while True:
        while len(started) <= ahead and (members := list(itertools.islice(remaining, size))):
            tiles = [pool.submit(_decode, item, scale, transform) for item, scale in members]
            started.append(_Group([item for item, _ in members], tiles))
        if not started:
            return
        yield started.popleft()


def _decode(item: Item, mpp: float | None, transform: Transform) -> Pixels:
    try:
        pixels = item.load()
    except (PathEncoderError, MemoryError):
        raise
    # an unexpected error of a reader must not stop the other images
    except Exception as error:
        raise ImageError(
            f"{item.where}: cannot be decoded ({type(error).__name__}: {error})"
        ) from error
    return transform.resize(pixels, mpp)


def _collect(group: _Group, size: int) -> tuple[Pixels, list[ImageError | None]]:
    """uint8 [N, S, S, 3] of a group, white where an image failed, and the errors.

    Errors other than ImageError are raised.
    """
    tiles = np.full((len(group.tiles), size, size, 3), 255, dtype=np.uint8)
    errors: list[ImageError | None] = [None] * len(tiles)
    for i, tile in enumerate(group.tiles):
        try:
            tiles[i] = tile.result()
        except ImageError as error:
            errors[i] = _without_frames(error)
    return tiles, errors


def _without_frames(error: ImageError) -> ImageError:
    """The error and its causes without tracebacks, which would keep the pixels in memory."""
    chain: BaseException | None = error
    while chain is not None:
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__
    return error


def _finish(group: _Group, errors: list[ImageError | None], rows: Tensor) -> Iterator[Result]:
    for item, error, row in zip(group.items, errors, rows.cpu().numpy(), strict=True):
        yield Result(item.key, row if error is None else np.full_like(row, np.nan), error)
