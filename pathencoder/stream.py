"""Images to rows, in order and in bounded memory.

Threads decode and resize; an image that cannot be read costs only its own row.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import numpy as np
import torch
from torch import Tensor
from tqdm.std import tqdm

from pathencoder.arrays import Pixels
from pathencoder.decoding import collect, decode_groups
from pathencoder.errors import ConfigError, ImageError
from pathencoder.images import Item, Key
from pathencoder.mpp import check_mpp
from pathencoder.pace import Pace
from pathencoder.runtime import BatchSize, Rows, Runner, RuntimeName, check_runtime
from pathencoder.transforms import Transform
from pathencoder.views import check_views, turned_back

log = logging.getLogger(__name__)

Scales: TypeAlias = float | Iterable[float | None] | None
OnError: TypeAlias = Literal["raise", "nan"]
Progress: TypeAlias = "bool | Literal['auto']"
_GROUPS_AHEAD = 2  # decoded while an accelerator computes


class Options(TypedDict, total=False):
    """The options that `Encoder.encode` and `Encoder.stream` share; see `Encoder.encode`."""

    mpp: Scales
    output: str
    views: int
    batch_size: BatchSize
    precision: str
    runtime: RuntimeName
    workers: int | None
    progress: Progress
    on_error: OnError


@dataclass(frozen=True)
class Settings:
    """How a network is read and run; see `Encoder.encode`."""

    output: str = "embedding"
    views: int = 1
    batch_size: BatchSize = "auto"
    precision: str = "auto"
    runtime: RuntimeName = "auto"
    workers: int | None = None
    pace: Pace | None = None  # where the times are counted

    def __post_init__(self) -> None:
        """Raises ConfigError for a runtime or a number of views that there is not."""
        check_runtime(self.runtime)
        object.__setattr__(self, "views", check_views(self.views))


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
class JointResult:
    """The results of one image by several networks.

    Attributes:
        key: As in `Result`.
        rows: One for each network; None for a network that did not want the image.
        error: As in `Result`.
    """

    key: Key
    rows: tuple[Rows | None, ...]
    error: ImageError | None = None


JointFound: TypeAlias = Generator[JointResult, None, None]


@dataclass(frozen=True)
class _Launched:
    """A group whose rows are being computed: for each network its images and their rows."""

    items: Sequence[Item]
    errors: Sequence[ImageError | None]
    rows: Sequence[tuple[Sequence[int], Tensor]]


def results(
    items: Iterable[tuple[Item, float | None]],
    transform: Transform,
    runner: Runner,
    *,
    group: int,
    workers: int,
    views: int = 1,
    pace: Pace | None = None,
) -> Found:
    """Decode images and run one network: one Result per image, in order.

    The arguments are those of `joint_results`.

    Yields:
        The results.
    """
    found = joint_results(
        items, transform, [runner], group=group, workers=workers, views=views, pace=pace
    )
    with contextlib.closing(found):
        for joint in found:
            (row,) = joint.rows
            assert row is not None
            yield Result(joint.key, row, joint.error)


def joint_results(
    items: Iterable[tuple[Item, float | None]],
    transform: Transform,
    runners: Sequence[Runner],
    *,
    group: int,
    workers: int,
    views: int = 1,
    wanted: Callable[[Key], Sequence[bool]] | None = None,
    pace: Pace | None = None,
) -> JointFound:
    """Decode images once and run networks on them: one JointResult per image, in order.

    On a CPU decoding and network alternate, each with all cores: running both at once, their
    threads would wait for each other at every layer. With an accelerator the next groups are
    decoded while it computes. Decoded images lie in a few buffers, which are used again.

    Args:
        items: Images with their micrometres per pixel.
        transform: The preprocessing of all the networks, up to the uint8 image.
        runners: Run the networks; all on one device.
        group: Number of images that are decoded together.
        workers: Number of decoding threads.
        views: Views of each image, over which the rows are averaged.
        wanted: For a key, which networks want the image. None: all.
        pace: Where the times are counted.

    Yields:
        The results.
    """
    pace = pace or Pace()
    on_cpu = runners[0].device.type == "cpu"
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pathencoder-decode")
    free: list[Pixels] = []
    groups = decode_groups(
        items, transform, pool, free, group, 0 if on_cpu else _GROUPS_AHEAD, views
    )
    batches = [runner.batch for runner in runners]
    try:
        launched: deque[_Launched] = deque()
        for decoding in groups:
            with pace.of_reading():
                tiles, errors = collect(decoding)
            with pace.of_network():
                launched.append(_launch(decoding.items, tiles, errors, runners, wanted))
                free.append(decoding.buffer)
                done = _rows(launched.popleft()) if on_cpu or len(launched) > 1 else []
            yield from done
        for waiting in launched:
            yield from _rows(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        pace.notes += [
            f"out of memory on {runner.device}: batches of {runner.batch} from there on"
            for runner, batch in zip(runners, batches, strict=True)
            if runner.batch < batch
        ]


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
        raise _wrong_count(len(mpp), total)
    return _paired(items, mpp)


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
    items: Iterable[Item], mpp: Iterable[float | None]
) -> Iterator[tuple[Item, float | None]]:
    """Each image with its scale; an iterator of scales, which may be endless, may have more."""
    scales, count = iter(mpp), 0
    for item in items:
        try:
            scale = next(scales)
        except StopIteration:
            raise ConfigError(
                f"mpp ended before the images did, at {item.where}: give one number, or one per"
                " image"
            ) from None
        count += 1
        yield item, None if scale is None else check_mpp(scale)
    if isinstance(mpp, Sized) and len(mpp) > count:
        raise _wrong_count(len(mpp), count)


def _wrong_count(scales: int, images: int) -> ConfigError:
    return ConfigError(
        f"mpp holds {scales} values for {images} images: give one number, or one per image"
    )


def _launch(
    items: Sequence[Item],
    tiles: Pixels,
    errors: Sequence[ImageError | None],
    runners: Sequence[Runner],
    wanted: Callable[[Key], Sequence[bool]] | None,
) -> _Launched:
    """Run each network on the images that it wants, uint8 [views, N, S, S, 3]."""
    rows: list[tuple[Sequence[int], Tensor]] = []
    wants = None if wanted is None else [wanted(item.key) for item in items]
    for number, runner in enumerate(runners):
        mine = [i for i in range(len(items)) if wants is None or wants[i][number]]
        if mine:
            rows.append((mine, _mean(runner, tiles if len(mine) == len(items) else tiles[:, mine])))
        else:
            rows.append((mine, torch.empty(0)))
    return _Launched(items, errors, rows)


def _mean(runner: Runner, tiles: Pixels) -> Tensor:
    """The rows of images [views, N, S, S, 3], averaged over their views."""
    total = runner(tiles[0])
    for view in range(1, len(tiles)):
        rows = runner(tiles[view])
        total = total + (turned_back(rows, view) if rows.ndim == 4 else rows)
    return total if len(tiles) == 1 else total / len(tiles)


def _rows(launched: _Launched) -> list[JointResult]:
    """The results of a group, once they are computed; NaN where an image failed."""
    arrays = [dict(zip(mine, rows.cpu().numpy(), strict=True)) for mine, rows in launched.rows]
    return [
        JointResult(item.key, tuple(_row(found.get(i), error) for found in arrays), error)
        for i, (item, error) in enumerate(zip(launched.items, launched.errors, strict=True))
    ]


def _row(row: Rows | None, error: ImageError | None) -> Rows | None:
    return row if error is None or row is None else np.full_like(row, np.nan)
