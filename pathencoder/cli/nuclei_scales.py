"""One assumed scale for all images of a folder whose files state none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder.cli.common import plural
from pathencoder.cli.meter import Meter
from pathencoder.cli.nuclei_sources import Source, Sources
from pathencoder.errors import PathEncoderError
from pathencoder.walk import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST = 6  # images of a folder that its scale is estimated from


def with_common_scales(sources: Sources, stain: str | None) -> Sources:
    """Give images without a scale that of all such images of their folder.

    Args:
        sources: With the scales that the user gave.
        stain: As the user gave it; the stain of a single source takes precedence.

    Returns:
        The sources, with a note on the assumed scales. A single image of a folder is not changed:
        `segment_nuclei` guesses its scale.
    """
    folders: dict[Path, list[Source]] = {}
    for source in sources.all:
        if _without_scale(source):
            folders.setdefault(source.path.parent, []).append(source)
    several = {folder: images for folder, images in folders.items() if len(images) > 1}
    if not several:
        return sources
    with Meter("guessing the scale", unit="folder") as meter:
        found = {}
        for number, (folder, images) in enumerate(several.items()):
            meter(number, len(several))
            found[folder] = _scale_of(images, stain)
    scales = {s.path: found[folder] for folder, group in several.items() for s in group}
    changed = [_with(s, *scales[s.path]) if s.path in scales else s for s in sources.all]
    notes = [_note(folder, len(several[folder]), *found[folder]) for folder in several]
    return Sources(changed, sources.left_out, [*sources.notes, *notes])


def _without_scale(source: Source) -> bool:
    from pathencoder.formats.image_scale import image_scale

    if source.kind != "image" or source.mpp:
        return False
    try:
        return image_scale(source.path) is None
    except PathEncoderError:
        return False  # segmenting it will raise the same error


def _scale_of(images: Sequence[Source], stain: str | None) -> tuple[float, str]:
    """Micrometres per pixel, and where they are from."""
    from pathencoder.nuclei.prepare import common_mpp
    from pathencoder.nuclei.scale import ASSUMED_MPP

    mpp = common_mpp(_some_pixels(images, stain))
    return mpp, "assumed" if mpp == ASSUMED_MPP else "size of nuclei"


def _some_pixels(
    images: Sequence[Source], stain: str | None
) -> Iterator[tuple[NDArray[np.uint8], str | None]]:
    """Pixels and stain of some images, evenly spaced; those that cannot be read are left out."""
    from pathencoder.images import open_image

    for source in images[:: -(-len(images) // _MOST)]:
        try:
            yield open_image(source.path, str(source.path)), source.stain or stain
        except (PathEncoderError, MemoryError):
            continue


def _with(source: Source, mpp: float, mpp_source: str) -> Source:
    return replace(source, mpp=mpp, mpp_source=mpp_source)


def _note(folder: Path, count: int, mpp: float, mpp_source: str) -> str:
    why = "the usual" if mpp_source == "assumed" else "by the size of their nuclei"
    return (
        f"{printable(folder)}: micrometres per pixel of {plural(count, 'image')} unknown: {mpp:g}"
        f" assumed, {why}; sizes depend on it, so give --mpp where it is known"
    )
