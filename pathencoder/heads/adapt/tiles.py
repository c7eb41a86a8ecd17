"""The images of an adaptation: pixels as the encoder takes them, and random views of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pathencoder import cores
from pathencoder.arrays import Pixels
from pathencoder.heads.dense import augment
from pathencoder.heads.dense.augment import Augmentation
from pathencoder.heads.rows import Ints
from pathencoder.images import ImageSource, open_image
from pathencoder.transforms import Transform

_KEPT = 4 * 2**30  # bytes of pixels that stay in memory
AUGMENTATION = Augmentation(scale=1.15, turn=False)


class Tiles:
    """Images of one data set at the input size of an encoder.

    They stay in memory up to 4 GiB; the others are decoded each time.

    Args:
        transform: The preprocessing of the encoder.
        images: Paths, or images in memory.
        names: What errors call each.
        mpp: As for `Encoder.encode`.
    """

    def __init__(
        self,
        transform: Transform,
        images: Sequence[ImageSource],
        names: Sequence[str],
        mpp: float | None,
    ) -> None:
        self.transform = transform
        self.side = transform.spec.input_size
        self._images, self._names, self._mpp = images, names, mpp
        self._kept: dict[int, Pixels] = {}
        self._most = _KEPT // (3 * self.side**2)

    def pixels(self, row: int) -> Pixels:
        """One image, uint8 [S, S, 3]; may run in any thread.

        Raises:
            ImageError: It cannot be read.
        """
        found = self._kept.get(row)
        if found is None:
            found = self.transform.resize(
                open_image(self._images[row], self._names[row]), self._mpp
            )
            if len(self._kept) < self._most:
                self._kept[row] = found
        return found

    def view(self, row: int, seed: Sequence[int]) -> Tensor:
        """One image flipped, turned by quarters, scaled and stained at random.

        Args:
            row: Of the image.
            seed: Of the random numbers.

        Returns:
            float [3, S, S], 0..255.
        """
        rng = np.random.default_rng(seed)
        planes = augment.as_planes(self.pixels(row))
        return augment.colours(
            augment.window(planes, self.side, AUGMENTATION, rng), AUGMENTATION, rng
        )

    def normalised(self, views: Sequence[Tensor]) -> Tensor:
        """A batch of views as the network takes it, float32 [N, 3, S, S], channels last."""
        batch = torch.stack(list(views)).permute(0, 2, 3, 1).contiguous()
        return self.transform.normalise(batch)


def batches(
    tiles: Tiles, rows: Ints, size: int, seed: int, epoch: int, first: int
) -> Iterator[tuple[Ints, Tensor]]:
    """The batches of one epoch, each prepared while the one before is used.

    Order and views follow from seed, epoch and place alone, so that a run that goes on at any batch
    sees what it would have seen.

    Args:
        tiles: The images.
        rows: To train on.
        size: Images of a batch.
        seed: Of the run.
        epoch: Its number.
        first: Batches that are left out at the beginning.

    Yields:
        Rows [N], and normalised views float32 [N, 3, S, S].
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    starts = range(first * size, len(order), size)
    waiting: deque[list[Future[Tensor]]] = deque()
    with ThreadPoolExecutor(min(8, cores.available())) as pool:

        def prepare(start: int) -> None:
            chosen = order[start : start + size]
            places = range(start, start + len(chosen))
            waiting.append(
                [
                    pool.submit(tiles.view, int(row), (seed, epoch, place))
                    for row, place in zip(chosen, places, strict=True)
                ]
            )

        try:
            for start in starts[:1]:
                prepare(start)
            for start in starts:
                if start + size < len(order):
                    prepare(start + size)
                views = [future.result() for future in waiting.popleft()]
                yield order[start : start + size], tiles.normalised(views)
        finally:
            for ahead in waiting:
                for future in ahead:
                    future.cancel()
