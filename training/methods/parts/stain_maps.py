"""Densities of stains: targets of every pixel without labels (pixel_targets.py).

Amounts of hematoxylin, eosin and DAB by colour deconvolution with fixed vectors (Ruifrok and
Johnston 2001).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pathencoder.stain import HED, unmixing
from training.methods.parts.pixel_targets import Source
from training.methods.parts.precision import in_fp32


@in_fp32
def stain_amounts(crops: Tensor) -> Tensor:
    """Amounts of hematoxylin, eosin and DAB in every pixel.

    Args:
        crops: Float [N, 3, H, W] in 0..1.

    Returns:
        Float [N, 3, H, W], as `pathencoder.stain.separate` gives them.
    """
    density = -crops.clamp(min=1 / 255).log10()
    matrix = torch.from_numpy(unmixing(HED)).to(density)
    return torch.einsum("nchw,cs->nshw", density, matrix)


SOURCE = Source(len(HED), lambda batch: lambda crops, places: stain_amounts(crops))
