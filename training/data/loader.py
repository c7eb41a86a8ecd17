"""Batches of tiles as one uint8 tensor, decoded ahead by threads or processes.

Threads suit a CPU run: Pillow releases the interpreter lock while it decodes. With a GPU, processes
are better: the training thread needs the interpreter lock for every operation that it launches, and
would wait for it among a dozen threads.
"""

from __future__ import annotations

import functools
import logging
import math
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pathencoder.errors import ImageError
from training.data.ahead import Ahead, Fetched
from training.data.sampler import Sampler
from training.data.tiles import Corpus

log = logging.getLogger(__name__)

_NOTHING: Fetched = MappingProxyType({})
_AHEAD = 2  # batches that are being decoded during a step
_PART = 8  # tiles of a batch that a thread decodes one after the other, at least
_NAMED = 50  # bad tiles that are named one by one; then every hundredth


@dataclass(frozen=True)
class TileBatch:
    """A batch of tiles.

    Attributes:
        tiles: uint8 [N, 3, T, T].
        stains: int64 [N], index into STAIN_CLASSES.
        indices: int64 [N], index into the corpus.
    """

    tiles: Tensor
    stains: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> TileBatch:
        """The same batch on another device."""
        return TileBatch(
            *(t.to(device, non_blocking=True) for t in (self.tiles, self.stains, self.indices))
        )

    def pin_memory(self) -> TileBatch:
        """The same batch in page-locked memory."""
        return TileBatch(*(t.pin_memory() for t in (self.tiles, self.stains, self.indices)))

    def parts(self, count: int) -> list[TileBatch]:
        """The batch in `count` parts, tile i in part i % count."""
        return [
            TileBatch(self.tiles[i::count], self.stains[i::count], self.indices[i::count])
            for i in range(count)
        ]


def batches(
    corpus: Corpus,
    sampler: Sampler,
    *,
    canvas: int,
    mpp: float | None = None,
    start: int,
    stop: int,
    rank: int = 0,
    world: int = 1,
    threads: int = 1,
    processes: int = 0,
    keep_mb: int = 0,
    pin: bool = False,
) -> Iterator[tuple[int, TileBatch]]:
    """The batches of steps start to stop - 1.

    A tile that cannot be decoded is logged once and replaced by a tile that is not in the batch, so
    that the batch keeps its size. Where no other tile is left, one of the batch is repeated.

    Args:
        corpus: The tiles.
        sampler: Chooses the tiles of a step.
        canvas: Side of the tiles in the batch, in pixels.
        mpp: Micrometres per pixel of the tiles in the batch, where the table states those of the
            tiles; None: tiles are used whole.
        start: The first step.
        stop: The step after the last one.
        rank: Number of this training process.
        world: Training processes; each gets every world-th tile of a step.
        threads: Decoding threads.
        processes: Decoding processes, instead of threads if not 0; each logs bad tiles itself.
        keep_mb: Memory for decoded tiles that are kept, in MB (of each decoding process).
        pin: Put batches into page-locked memory, from which a GPU copies them asynchronously.

    Returns:
        (step, batch of this training process) in order.

    Raises:
        ImageError: No tile of a batch can be decoded.
    """
    reader = _Reader(corpus, canvas, room=(keep_mb << 20) // (3 * canvas * canvas), mpp=mpp)
    share = _Share(corpus, sampler, reader, rank, world, stop)
    return (
        _by_processes(share, start, stop, processes, pin)
        if processes
        else _by_threads(share, start, stop, threads, pin)
    )


@dataclass
class _Share(Dataset[TileBatch]):
    """The batches of one training process, by step."""

    corpus: Corpus
    sampler: Sampler
    reader: _Reader
    rank: int
    world: int
    stop: int

    @functools.cached_property
    def ahead(self) -> Ahead:
        """Of this decoding process, which makes every stride-th step."""
        worker = get_worker_info()
        return Ahead(
            self.corpus,
            self.sampler,
            self.reader.missing,
            rank=self.rank,
            world=self.world,
            stop=self.stop,
            stride=worker.num_workers if worker else 1,
        )

    @functools.cached_property
    def network(self) -> ThreadPoolExecutor:
        """Reads bytes, and waits for a disk or an object store."""
        return ThreadPoolExecutor(_AHEAD if self.sampler.run == 1 else 1)

    @functools.cached_property
    def together(self) -> bool:
        """Whether the bytes of a batch are read together: not of files, which may be large."""
        return self.corpus.source.remote or self.corpus.tiles.parts() is not None

    def order(self, step: int) -> Future[Fetched] | None:
        """Read the bytes of a step, then some of later ones; None where files are read singly."""
        if not self.together:
            return None
        fetched = self.network.submit(self.ahead.take, step)
        if self.corpus.source.remote:
            # Where this fails, the step that needs the bytes asks for them again.
            self.network.submit(self.ahead.prepare, step)
        return fetched

    def __getitem__(self, step: int) -> TileBatch:
        indices, fetched = self.ahead.indices(step), self.order(step)
        canvas = self.reader.canvas
        tiles = np.empty((len(indices), canvas, canvas, 3), dtype=np.uint8)
        return self.join(step, indices, tiles, self.fill(tiles, indices, fetched))

    def fill(
        self, tiles: np.ndarray, indices: Sequence[int], fetched: Future[Fetched] | None
    ) -> list[bool]:
        """Decode tiles into uint8 [N, T, T, 3], each while its pixels are in the CPU's cache.

        Returns:
            Which of them could be decoded.
        """
        there = fetched.result() if fetched else _NOTHING
        return [self.reader.read(i, into, there) for i, into in zip(indices, tiles, strict=True)]

    def join(
        self, step: int, indices: list[int], tiles: np.ndarray, decoded: list[bool]
    ) -> TileBatch:
        """The batch of a step; tiles that could not be decoded are replaced."""
        chosen = np.array(indices)
        if not all(decoded):
            self._replace(step, chosen, tiles, np.array(decoded))
        return TileBatch(
            torch.from_numpy(tiles).permute(0, 3, 1, 2),
            torch.from_numpy(self.corpus.stains_of(chosen)),
            torch.from_numpy(chosen),
        )

    def _replace(
        self, step: int, chosen: np.ndarray, tiles: np.ndarray, decoded: np.ndarray
    ) -> None:
        """Put other tiles where one is missing: in `chosen`, and its pixels in `tiles`."""
        # Each process takes its share of the spare tiles too: no two take the same.
        spares = (int(i) for i in self.sampler.spares(step)[self.rank :: self.world])
        for place in np.flatnonzero(~decoded):
            spare = next((i for i in spares if self.reader.read(i, tiles[place])), None)
            if spare is None:
                break
            chosen[place], decoded[place] = spare, True
        good = np.flatnonzero(decoded)
        if not len(good):
            raise ImageError("no tile of this batch could be decoded; see the log for their names")
        for place in np.flatnonzero(~decoded):
            other = good[place % len(good)]
            chosen[place], tiles[place] = chosen[other], tiles[other]


def _by_threads(
    share: _Share,
    start: int,
    stop: int,
    threads: int,
    pin: bool,  # noqa: FBT001
) -> Iterator[tuple[int, TileBatch]]:
    canvas = share.reader.canvas

    def join(
        step: int, indices: list[int], tiles: np.ndarray, parts: list[Future[list[bool]]]
    ) -> TileBatch:
        decoded = [good for part in parts for good in part.result()]
        batch = share.join(step, indices, tiles, decoded)
        return batch.pin_memory() if pin else batch

    with ThreadPoolExecutor(threads) as pool, share.network as network:
        steps, waiting = iter(range(start, stop)), deque[tuple[int, Future[TileBatch]]]()

        def order() -> None:
            for step in steps:
                indices, fetched = share.ahead.indices(step), share.order(step)
                tiles = np.empty((len(indices), canvas, canvas, 3), dtype=np.uint8)
                size = max(_PART, -(-len(indices) // (2 * threads)))
                parts = [
                    pool.submit(share.fill, tiles[i : i + size], indices[i : i + size], fetched)
                    for i in range(0, len(indices), size)
                ]
                # The pool is first in, first out: what this job waits for was started before it.
                waiting.append((step, pool.submit(join, step, indices, tiles, parts)))
                return

        for _ in range(_AHEAD):
            order()
        try:
            while waiting:
                step, batch = waiting.popleft()
                ready = batch.result()
                order()
                yield step, ready
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            network.shutdown(wait=True, cancel_futures=True)


def _by_processes(
    share: _Share,
    start: int,
    stop: int,
    processes: int,
    pin: bool,  # noqa: FBT001
) -> Iterator[tuple[int, TileBatch]]:
    """Every process makes whole batches; the steps are assigned in turn."""
    steps = range(start, stop)
    loader = DataLoader(
        share,
        batch_size=None,
        sampler=steps,
        num_workers=processes,
        prefetch_factor=_AHEAD,
        pin_memory=pin,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # the default would draw from the global generator
        # the threads of an object store's client do not survive a fork
        multiprocessing_context="spawn" if share.corpus.source.remote else None,
    )
    yield from zip(steps, loader, strict=True)


def _ignore_signals(number: int) -> None:
    """After Ctrl-C or Slurm's warning the run finishes its step, for which it needs its loader."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@dataclass
class _Reader:
    """Reads tiles for several threads.

    Remembers tiles that cannot be decoded, and keeps the first `room` tiles in memory.
    """

    corpus: Corpus
    canvas: int
    room: int = 0
    mpp: float | None = None
    kept: dict[int, np.ndarray] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)

    def _field(self, index: int) -> float | None:
        """The side of the field of view in pixels of the tile; None: all of it."""
        stated = self.corpus.mpp_of(index) if self.mpp else math.nan
        return None if math.isnan(stated) or not self.mpp else self.canvas * self.mpp / stated

    def missing(self, indices: Iterable[int]) -> list[int]:
        """The tiles whose bytes are needed."""
        return [i for i in indices if i not in self.bad and i not in self.kept]

    def read(self, index: int, into: np.ndarray, fetched: Fetched = _NOTHING) -> bool:
        """Write a tile to uint8 [T, T, 3], from bytes that were fetched or from its file.

        Returns:
            Whether it could be decoded.
        """
        if index in self.bad:
            return False
        if index in self.kept:
            into[:] = self.kept[index]
            return True
        try:
            data, field = fetched.get(index), self._field(index)
            tile = (
                self.corpus.read(index, into)
                if data is None
                else self.corpus.decode(index, data, into)
            )
            if tile is not into or (field is not None and field < self.canvas):
                into[:] = fit_canvas(tile, self.canvas, field)
        except ImageError as error:
            self.bad.add(index)
            if len(self.bad) <= _NAMED or len(self.bad) % 100 == 0:
                log.warning("skipped (%d so far): %s", len(self.bad), error)
            return False
        if len(self.kept) < self.room:
            self.kept[index] = into.copy()
        return True


def fit_canvas(tile: np.ndarray, canvas: int, field: float | None = None) -> np.ndarray:
    """The central square of uint8 [H, W, 3], resized to [canvas, canvas, 3] if need be.

    Args:
        tile: The tile.
        canvas: The side of the result, px.
        field: The side of the square, px of the tile; None, or more than it has: its shorter side.
    """
    side = min(tile.shape[:2])
    side = side if field is None else max(1, min(side, round(field)))
    top, left = (tile.shape[0] - side) // 2, (tile.shape[1] - side) // 2
    square = tile[top : top + side, left : left + side]
    if side == canvas:
        return square
    return np.asarray(Image.fromarray(square).resize((canvas, canvas), Image.Resampling.BICUBIC))
