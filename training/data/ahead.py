"""The bytes of tiles in an object store, fetched before their steps, a run in a request.

At each step a share of the runs of a later block is fetched, so that the store is asked for as much
at every step. What is fetched before its step stays in memory: batch * run tiles of a process. From
there, decoding threads take it. Decoding processes make different steps of a block, and share what
they fetch through the local cache (`run.cache_mb`); without one, each fetches the tiles of its own
steps only, a request for those of them that are neighbours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pathencoder.errors import ImageError
from training.data.sampler import Sampler
from training.data.tiles import Corpus

Fetched = Mapping[int, bytes | ImageError]  # by index

_BLOCKS = 8  # that are kept, at least: this one and the next ones


@dataclass
class Ahead:
    """Fetches the tiles of one training process; for one thread at a time, where `run` is not 1.

    Attributes:
        corpus: The tiles.
        sampler: Chooses the tiles of a step.
        needed: The tiles of some whose bytes are needed.
        rank: Number of the training process.
        world: Training processes.
        stop: The step after the last one.
        stride: Steps from one that this decoding process makes to its next: the number of decoding
            processes; 1 with threads.
    """

    corpus: Corpus
    sampler: Sampler
    needed: Callable[[Iterable[int]], list[int]]
    rank: int
    world: int
    stop: int
    stride: int = 1
    _held: dict[int, dict[int, bytes | ImageError]] = field(default_factory=dict)  # by step
    _blocks: dict[int, np.ndarray] = field(default_factory=dict)  # by their first step
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the blocks

    def indices(self, step: int) -> list[int]:
        """The tiles of this training process at a step."""
        found: list[int] = self._block(step)[step % self.sampler.run].tolist()
        return found

    def take(self, step: int) -> Fetched:
        """The bytes of the tiles of a step, which are not held any longer.

        Raises:
            StoreError: The object store does not answer.
        """
        self._complete(step)
        return self._held.pop(step, {})

    def prepare(self, step: int) -> None:
        """Fetch what later steps need, beside the work of a step.

        Raises:
            StoreError: The object store does not answer.
        """
        run = self.sampler.run
        if run == 1:
            return
        if self.stride > 1 and not self.corpus.source.shared:
            self._complete(step + self.stride)
            return
        # The processes are at so many steps at the same time.
        later = 1 + -(-2 * self.stride // run) if self.stride > 1 else 1
        first = step - step % run + later * run
        places = range(step % run, self._block(step).shape[1], run)
        self._fetch(range(first, first + run), places, own=step)

    def _complete(self, step: int) -> None:
        """Fetch what a step lacks, and the rest of those runs for the steps of this process."""
        if step >= self.stop:
            return
        row, held = self.indices(step), self._held.get(step, {})
        lacking = set(self.needed(i for i in row if i not in held))
        places = [place for place, i in enumerate(row) if i in lacking]
        end = step - step % self.sampler.run + self.sampler.run
        self._fetch(range(step, end, self.stride), places, own=step)

    def _fetch(self, steps: Iterable[int], places: Sequence[int], own: int) -> None:
        """Fetch the tiles of some steps and places; hold those of the steps of this process."""
        if not places:
            return
        rows = {}
        for step in steps:
            if step < self.stop:
                indices = self.indices(step)
                rows[step] = [indices[place] for place in places]
        wanted = self.needed(dict.fromkeys(i for row in rows.values() for i in row))
        found = self.corpus.fetch(wanted) if wanted else {}
        for step, row in rows.items():
            if (step - own) % self.stride == 0:
                there = {i: found[i] for i in row if i in found}
                self._held.setdefault(step, {}).update(there)

    def _block(self, step: int) -> np.ndarray:
        """int64 [run, tiles of this training process]."""
        first = step - step % self.sampler.run
        with self._lock:
            block = self._blocks.get(first)
            if block is None:
                block = self.sampler.block(step)[:, self.rank :: self.world]
                while len(self._blocks) >= _BLOCKS + self.stride:
                    self._blocks.pop(next(iter(self._blocks)))
                self._blocks[first] = block
            return block
