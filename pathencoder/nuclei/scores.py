"""The score map that is split into nuclei: the mean stain map, corrected by the network."""

from __future__ import annotations

import numpy as np
import torch

from pathencoder.nuclei.instances import Scores
from pathencoder.nuclei.network import NucleiNetwork
from pathencoder.stain import Array

# Weight of the network's logit added to the stain map, chosen on MoNuSeg's labelled train images.
SHARE = 0.15


def mean_stain(maps: Array) -> Scores:
    """The mean of the three stain maps [3, h, w], slightly smoothed: float32 [h, w]."""
    from scipy import ndimage

    smooth: Scores = ndimage.gaussian_filter(maps.mean(0), 0.6)
    return smooth


@torch.inference_mode()
def predict(network: NucleiNetwork, maps: Array) -> Array:
    """Logits of nucleus and depth float32 [2, h, w] of one image's maps float32 [3, h, w]."""
    batch = torch.from_numpy(np.ascontiguousarray(maps, np.float32))[None].contiguous(
        memory_format=torch.channels_last
    )
    out: Array = network(batch)[0].numpy()
    return out


def nucleus_scores(network: NucleiNetwork, maps: Array) -> Array:
    """The mean stain map plus a share of the network's nucleus logit.

    The network knows outlines but no level, the stain map knows the level alone; their sum has
    fewer errors than either.

    Args:
        network: The network, in eval mode.
        maps: float32 [3, h, w], stain maps.

    Returns:
        float32 [h, w], above 0 in nuclei.
    """
    scores: Array = mean_stain(maps) + np.float32(SHARE) * predict(network, maps)[0]
    return scores
