"""Scale of the crop: a target of every pixel without labels (pixel_targets.py).

Crops of different sizes are resized to equal ones and attracted to each other, which teaches a
network to ignore scale, and with it how large nuclei are. This task keeps the scale in the maps: it
is known of each crop, and the same at all of its pixels.
"""

from __future__ import annotations

from torch import Tensor

from training.augment import half_sides
from training.methods.parts.pixel_targets import Source


def log_scale(places: Tensor) -> Tensor:
    """log2 of the side of crops, as a share of that of their tiles.

    A crop of half the tile's side is magnified twice as much: one less. Sides of different length
    count by their geometric mean.

    Args:
        places: Float [N, 2, 3], as `augment.crop_places` draws them.

    Returns:
        Float [N, 1, 1, 1].
    """
    return half_sides(places).log2().mean(1).view(-1, 1, 1, 1)


SOURCE = Source(1, lambda batch: lambda crops, places: log_scale(places))
