"""Batches of tiles as one uint8 tensor, decoded ahead by threads (Pillow lets go of the interpreter while it decodes)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pathencoder.errors import ImageError
from training.data.corpus import Corpus
from training.data.sampler import Sampler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileBatch:
    """tiles: uint8 [N, 3, T, T] on one canvas size. stains: int64 [N], index into STAIN_CLASSES. indices: int64 [N] in the corpus."""

    tiles: Tensor
    stains: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> TileBatch:
        """The same batch on another device."""
        return TileBatch(*(t.to(device, non_blocking=True) for t in (self.tiles, self.stains, self.indices)))


def batches(
    corpus: Corpus, sampler: Sampler, *, canvas: int, start: int, stop: int, rank: int = 0, world: int = 1, threads: int = 1
) -> Iterator[tuple[int, TileBatch]]:
    """(step, this process's share of its tiles) for steps start..stop - 1. A tile that cannot be decoded is named once and
    replaced by its neighbour in the same draw, so that the batch keeps its size."""
    bad: set[int] = set()
    with ThreadPoolExecutor(threads) as pool:
        ahead = pool.submit(_batch, corpus, sampler.draw(start)[rank::world], canvas, bad) if start < stop else None
        for step in range(start, stop):
            assert ahead is not None
            ready = ahead.result()
            ahead = pool.submit(_batch, corpus, sampler.draw(step + 1)[rank::world], canvas, bad) if step + 1 < stop else None
            yield step, ready


def _batch(corpus: Corpus, indices: np.ndarray, canvas: int, bad: set[int]) -> TileBatch:
    good, tiles = [], []
    for index in (int(i) for i in indices):
        if index in bad:
            continue
        try:
            tiles.append(fit_canvas(corpus.read(index), canvas))
            good.append(index)
        except ImageError as error:
            bad.add(index)
            log.warning("skipped: %s", error)
    if not good:
        raise ImageError("no tile of this batch could be decoded; see the log for their names")
    fill = [i % len(good) for i in range(len(indices))]
    chosen = np.array([good[i] for i in fill])
    stacked = torch.from_numpy(np.stack([tiles[i] for i in fill])).permute(0, 3, 1, 2)
    return TileBatch(stacked, torch.from_numpy(corpus.stains[chosen].astype(np.int64)), torch.from_numpy(chosen))


def fit_canvas(tile: np.ndarray, canvas: int) -> np.ndarray:
    """uint8 [H, W, 3] -> [canvas, canvas, 3]: the central square, resized if it is not of that size already."""
    side = min(tile.shape[:2])
    top, left = (tile.shape[0] - side) // 2, (tile.shape[1] - side) // 2
    square = tile[top : top + side, left : left + side]
    if side == canvas:
        return square
    return np.asarray(Image.fromarray(square).resize((canvas, canvas), Image.Resampling.BICUBIC))
