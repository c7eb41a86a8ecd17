"""Views of an image: quarter turns and mirror images, over which its embedding is averaged.

Tissue lies on the glass in any orientation, but the embedding of a turned tile differs a little.
The mean over the four quarter turns does not depend on the turn, that over the turns of the tile
and of its mirror image not on either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

VIEWS = (1, 4, 8)  # the image alone, its quarter turns, those of the image and its mirror image


def check_views(views: object) -> int:
    """The number of views of a request.

    Raises:
        ConfigError: It is not one of `VIEWS`.
    """
    if isinstance(views, bool) or not isinstance(views, int | np.integer) or views not in VIEWS:
        raise ConfigError(
            f"views={views!r}: 1 (the image as it is), 4 (the mean over its quarter turns) or 8"
            " (over those of its mirror image too)"
        )
    return int(views)


def turned(image: Pixels, view: int) -> Pixels:
    """One view of an image.

    Args:
        image: uint8 [H, W, 3].
        view: 0 to 3: quarter turns anticlockwise. 4 to 7: those of the mirror image.

    Returns:
        uint8 [H, W, 3] or [W, H, 3]; it may share the memory of `image`.
    """
    return np.rot90(image[:, ::-1] if view >= 4 else image, view % 4)


def turned_back(maps: Tensor, view: int) -> Tensor:
    """The maps [N, C, h, w] of a view, laid over the image that `turned` turned."""
    upright = maps.rot90(-(view % 4), (2, 3))
    return upright.flip(3) if view >= 4 else upright
