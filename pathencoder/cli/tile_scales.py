"""What image files state of their scale where the user does not.

said, since such images are resized whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import MissingMpp
from pathencoder.formats.file_kinds import TIFF_SUFFIXES
from pathencoder.formats.image_scale import image_scale

_LOOKED_AT = 256  # headers that are read, evenly spaced


def stated_scales(images: Sequence[tuple[str, Path]]) -> list[str]:
    """A sentence on the scales that TIFF images state.

    Args:
        images: Key and path of each image of one input.

    Returns:
        One sentence; none where no TIFF among them states a scale.
    """
    files = [path for _, path in images if path.suffix.lower() in TIFF_SUFFIXES]
    looked_at = files[:: -(-len(files) // _LOOKED_AT)] if files else []
    scales = Counter(scale for scale in map(_stated, looked_at) if scale)
    if not scales:
        return []
    (mpp, count), *others = scales.most_common()
    how_many = f"{count:,} of {len(looked_at):,} TIFF images" if count > 1 else "one TIFF image"
    also = f" ({', '.join(other for other, _ in others[:3])} others)" if others else ""
    verb = "state" if count > 1 else "states"
    return [
        f"{how_many} {verb} {mpp} um/px{also}; all are resized whole: --mpp {mpp} brings them to"
        " the encoder's scale instead"
    ]


def _stated(path: Path) -> str | None:
    try:
        scale = image_scale(path)
    except (MissingMpp, OSError):  # what it says cannot be believed: not said
        return None
    return f"{scale.value:.4g}" if scale else None
