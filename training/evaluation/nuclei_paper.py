"""The paper's nuclei network trained on a list of images, for comparisons.

The steps are those of training/recipes/bundled/nuclei_fcn_paper.yaml.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pathencoder.files import make_folder, whole_file
from pathencoder.nuclei.network import ConfidenceNetwork
from pathencoder.nuclei.prepare import Prepared
from training.data.loader import TileBatch
from training.methods.patch_contrast import PatchContrast, Settings

log = logging.getLogger("training")
EPOCHS, BATCH, RATE, DECAY = 25, 10, 2e-4, 1e-4


def train_paper(
    images: Sequence[NDArray[np.uint8]], cache: Path, *, seed: int, settings: Settings | None = None
) -> ConfidenceNetwork:
    """Train the paper's network, 25 epochs of one crop an image.

    Args:
        images: uint8 [H, W, 3] each, of at least the crop's size.
        cache: The file in which the trained weights are kept, and from which they are read if it
            is there already.
        seed: Of the weights, the order and the crops.
        settings: Of the method; the paper's, without early stopping, if None.

    Returns:
        The network in eval mode.

    Raises:
        StoreError: The cache cannot be written.
    """
    settings = settings or Settings(stop=False)
    network = ConfidenceNetwork(settings.channels)
    if cache.exists():
        network.load_state_dict(torch.load(cache, weights_only=True))
        return network.eval()
    torch.manual_seed(seed)
    method = PatchContrast(settings, torch.Generator().manual_seed(seed)).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=RATE, weight_decay=DECAY)
    step = 0
    for epoch in range(EPOCHS):
        for batch in _batches(images, np.random.default_rng((seed, epoch))):
            _step(method, optimizer, batch, step)
            step += 1
        if method.converged:
            break
    network.load_state_dict(method.backbone.state_dict())
    make_folder(cache.parent)
    with whole_file(cache) as temporary:
        torch.save(network.state_dict(), temporary)
    return network.eval()


def _batches(images: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> list[TileBatch]:
    order = rng.permutation(len(images))
    return [_batch([images[i] for i in order[k : k + BATCH]]) for k in range(0, len(order), BATCH)]


def _batch(images: list[NDArray[np.uint8]]) -> TileBatch:
    side = min(min(i.shape[:2]) for i in images)
    tiles = torch.stack([torch.tensor(i[:side, :side]).permute(2, 0, 1) for i in images])
    return TileBatch(tiles, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)))


def _step(
    method: PatchContrast, optimizer: torch.optim.Optimizer, batch: TileBatch, step: int
) -> None:
    loss, logs = method.loss(method.views(batch), step)
    optimizer.zero_grad()
    if not logs["skipped"]:
        loss.backward()
        optimizer.step()
    method.after_step(step)
    figures = {k: round(float(v), 4) for k, v in logs.items()}
    log.info("paper, step %d: loss %.3f, %s", step, loss.item(), figures)


@torch.inference_mode()
def confidence(network: ConfidenceNetwork, prepared: Prepared) -> NDArray[np.float32]:
    """Confidence maps of an image, computed at its own resolution as in the paper.

    Args:
        network: The paper's network.
        prepared: The image.

    Returns:
        float32 [C, h, w], averaged to the working scale.
    """
    image: Tensor = (
        torch.tensor(prepared.image)
        .permute(2, 0, 1)[None]
        .float()
        .div(255)
        .contiguous(memory_format=torch.channels_last)
    )
    out: NDArray[np.float32] = functional.interpolate(
        network(image), size=prepared.working.shape[:2], mode="area"
    )[0].numpy()
    return out
