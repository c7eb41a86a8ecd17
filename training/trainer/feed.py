"""The batches of a run with their views.

Everything random in a step follows from the seed and the step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pathencoder import cores
from training import distributed
from training.config import Config
from training.data.loader import TileBatch, batches
from training.methods import Views
from training.trainer.parts import Parts
from training.trainer.throughput import Throughput

Item = tuple[int, TileBatch, list[Views]]  # step, batch on the device, views of each of its parts


class Feed:
    """Reads batches and makes their views.

    Args:
        parts: The parts of the run.
        throughput: Measures the time spent waiting for a batch.
    """

    def __init__(self, parts: Parts, throughput: Throughput) -> None:
        self._parts, self._throughput = parts, throughput
        # there is one generator, and a bad step makes its views again while others are made ahead
        self._lock = threading.Lock()

    def items(self, start: int) -> Iterator[Item]:
        """Batches and views of the steps from `start` to the last one.

        If a CPU core is free, a thread makes the views of the next step during a step.
        """
        read = self._read(start)
        if self._ahead():
            yield from self._throughput.timed(self._made_ahead(read))
            return
        for step, batch in self._throughput.timed(read):
            moved = batch.to(self._parts.device)
            yield step, moved, self.views(step, moved)

    def views(self, step: int, batch: TileBatch) -> list[Views]:
        """The views of each part of a step's batch; the same at every call."""
        count = self._parts.cfg.optim.accumulate
        parts = batch.parts(count) if count > 1 else [batch]
        with self._lock:
            # The same seed in all processes: they draw for the joint batch and take their share.
            self._parts.plan.generator.manual_seed(seed_of(self._parts.cfg, step))
            return [self._parts.method.views(part) for part in parts]

    def _read(self, start: int) -> Iterator[tuple[int, TileBatch]]:
        cfg = self._parts.cfg
        return batches(
            self._parts.corpus,
            self._parts.sampler,
            canvas=cfg.data.canvas,
            mpp=cfg.data.mpp,
            start=start,
            stop=cfg.optim.steps,
            rank=distributed.rank(),
            world=distributed.world(),
            threads=cfg.run.loaders,
            processes=cfg.run.loader_processes,
            keep_mb=cfg.run.keep_mb,
            pin=self._parts.device.type == "cuda",
        )

    def _ahead(self) -> bool:
        return (
            self._parts.device.type == "cpu"
            and cores.available() > self._parts.cfg.run.threads
            and not self._parts.method.draws_in_loss
        )

    def _made_ahead(self, read: Iterator[tuple[int, TileBatch]]) -> Iterator[Item]:
        with ThreadPoolExecutor(1) as pool:
            waiting: tuple[int, TileBatch, Future[list[Views]]] | None = None
            for step, batch in read:
                started = step, batch, pool.submit(self.views, step, batch)
                if waiting:
                    yield waiting[0], waiting[1], waiting[2].result()
                waiting = started
            if waiting:
                yield waiting[0], waiting[1], waiting[2].result()


def seed_of(cfg: Config, step: int) -> int:
    """The seed of everything random in a step."""
    return (cfg.seed * 1_000_003 + step) * 8191
