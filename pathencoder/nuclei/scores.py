"""The score map that nuclei are cut from: the mean stain map, corrected by the network."""

from __future__ import annotations

import numpy as np
import torch

from pathencoder.nuclei.instances import Scores
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.stain import Array

# weight of the network's logit beside the stain map; chosen on labelled images of MoNuSeg's train
# part
SHARE = 0.15


def mean_stain(maps: Array) -> Scores:
    """The teacher that has learnt nothing: the mean of the three maps, slightly smoothed."""
    from scipy import ndimage

    smooth: Scores = ndimage.gaussian_filter(maps.mean(0), 0.6)
    return smooth


@torch.inference_mode()
def predict(network: NucleiNetwork, maps: Array) -> Array:
    """Nucleus logit and depth logit float32 [2, h, w] of one image's maps [3, h, w]."""
    batch = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None].contiguous(
        memory_format=torch.channels_last
    )
    out: Array = network(batch)[0].numpy()
    return out


def nucleus_scores(network: NucleiNetwork, maps: Array) -> Array:
    """The score map float32 [h, w] that nuclei are cut from (above 0.

    nucleus): the mean stain map, corrected by the network.

    The network sees outlines and no level, the stain map sees the level alone; their sum errs less
    than either.
    """
    scores: Array = mean_stain(maps) + np.float32(SHARE) * predict(network, maps)[0]
    return scores
