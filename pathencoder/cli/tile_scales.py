"""The scales that image files state, for a note where the user gives none.

Without --mpp, images are resized whole whatever they state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import MissingMpp
from pathencoder.formats.file_kinds import TIFF_SUFFIXES
from pathencoder.formats.image_scale import image_scale

_HEADERS = 256  # headers that are read at most, evenly spaced


def stated_scales(images: Sequence[tuple[str, Path]]) -> list[str]:
    """A sentence on the scales that TIFF images state.

    Args:
        images: Key and path of each image of one input.

    Returns:
        One sentence, or nothing where no TIFF among them states a scale.
    """
    files = [path for _, path in images if path.suffix.lower() in TIFF_SUFFIXES]
    read = files[:: -(-len(files) // _HEADERS)] if files else []
    scales = Counter(scale for scale in map(_stated, read) if scale)
    if not scales:
        return []
    (mpp, count), *others = scales.most_common()
    how_many = f"{count:,} of {len(read):,} TIFF images" if count > 1 else "one TIFF image"
    also = f" ({', '.join(other for other, _ in others[:3])} others)" if others else ""
    verb = "state" if count > 1 else "states"
    return [
        f"{how_many} {verb} {mpp} um/px{also}; all are resized whole: --mpp {mpp} brings them to"
        " the encoder's scale instead"
    ]


def _stated(path: Path) -> str | None:
    try:
        scale = image_scale(path)
    except (MissingMpp, OSError):  # not plausible, or not readable
        return None
    return f"{scale.value:.4g}" if scale else None
