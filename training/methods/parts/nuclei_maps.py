"""Maps of the bundled nuclei network: targets of every pixel without labels (pixel_targets.py).

The network, nuclei-fcn, was itself trained without labels. It reads whole tiles at its own scale of
0.5 um per pixel, once for all crops of a tile, and its maps are cut where the crops are. Its logit
alone finds too many nuclei in pale tiles, since it knows outlines and no level: as in segmentation
(pathencoder/nuclei/scores.py), a share of it is added to the mean stain map.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pathencoder.nuclei.maps import calibrate
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.nuclei.prepare import to_working
from pathencoder.nuclei.scores import SHARE
from pathencoder.nuclei.weights import load_network
from pathencoder.stain import guess_stain
from training import augment
from training.data.loader import TileBatch
from training.data.tiles import STAIN_CLASSES
from training.methods.parts.dense_task import Beside, DenseTaskSettings
from training.methods.parts.pixel_targets import Source
from training.methods.parts.precision import in_fp32

CHANNELS = 2  # probability of a nucleus, and depth in it
# Thresholds of a tile are measured on every second row and column: they are quantiles and means of
# a distribution, and take most of the time.
_EVERY = 2
# The scores of stained and other pixels are about 1 and -1, which become .98 and .02.
_SLOPE = 4.0
_AT_ONCE = 4  # tiles; more do not fit a CPU's cache, and take longer


class NucleiMapSettings(DenseTaskSettings):
    """The task of nuclei.

    Attributes:
        mpp: Micrometres per pixel of the tiles at data.canvas px, which is data.mpp where that is
            set. Nuclei are found at their right size only if it is about right.
    """

    mpp: float = Field(default=0.5, ge=0.05, le=2)


def source(settings: NucleiMapSettings) -> Source:
    """The target: maps of nuclei, cut where the crops are."""

    def of(batch: TileBatch) -> Beside:
        maps = tile_maps(batch, settings.mpp)
        levels = augment.Source(maps, F.avg_pool2d(maps, 2))
        return lambda crops, places: augment.cut(levels, places, crops.shape[-1])

    return Source(CHANNELS, of)


@torch.no_grad()
@in_fp32
def tile_maps(batch: TileBatch, mpp: float) -> Tensor:
    """Probability of a nucleus, and depth in it, of every pixel of tiles.

    Args:
        batch: The tiles.
        mpp: Their micrometres per pixel.

    Returns:
        Float [N, 2, t, t] in 0..1, at 0.5 um per pixel, on the device of the tiles.
    """
    images = batch.tiles.permute(0, 2, 3, 1).cpu().numpy()
    names = [STAIN_CLASSES[i] for i in batch.stains.tolist()]
    inputs = [_stain_maps(to_working(x, mpp), name) for x, name in zip(images, names, strict=True)]
    read = torch.from_numpy(np.stack(inputs)).to(batch.tiles.device)
    read = read.contiguous(memory_format=torch.channels_last)
    return torch.cat([_targets(part) for part in read.split(_AT_ONCE)])


def _targets(read: Tensor) -> Tensor:
    """Probability and depth [N, 2, h, w] by what the network reads [N, 3, h, w]."""
    nucleus, depth = _network(read.device)(read).unbind(1)
    score = read.mean(1) + SHARE * nucleus
    return torch.stack([_SLOPE * score, depth], 1).sigmoid()


def _stain_maps(image: NDArray[np.uint8], stain: str) -> NDArray[np.float32]:
    """What the network reads [3, h, w] of a tile [h, w, 3]."""
    if stain not in ("he", "ihc"):
        stain = "ihc" if guess_stain(image).stain == "ihc" else "he"
    return calibrate(image[::_EVERY, ::_EVERY], stain).maps(image)


@functools.cache
def _network(device: torch.device) -> NucleiNetwork:
    network = copy.deepcopy(load_network()).to(device)
    network.requires_grad_(requires_grad=False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
