"""The scale that an image file states: TIFF tags, OME-XML, ImageJ, PNG and JPEG."""

from __future__ import annotations

import os
from pathlib import Path

from pathencoder.errors import MissingMpp
from pathencoder.formats.tiff_tags import read_pages
from pathencoder.mpp import PLAUSIBLE, Mpp, decide
from pathencoder.mpp_claims import (
    Claim,
    Evidence,
    described_size,
    of_description,
    of_tags,
    power_in,
)
from pathencoder.walk import is_special


def image_scale(path: str | os.PathLike[str]) -> Mpp | None:
    """Micrometres per pixel of an image, from the header of its file.

    The resolution of a PNG or JPEG is mostly that of a screen: it is used only where it is
    plausible for a microscope. A resolution of a TIFF that is that of a screen or printer (72,
    300 dpi) is ignored, too.

    Args:
        path: An image file of any kind.

    Returns:
        The scale and its source; None where the file states none or cannot be read.

    Raises:
        MissingMpp: A TIFF whose claims contradict each other, or whose scale no scanner has (a
            wrong unit). The message lists them; --mpp overrules them.
    """
    path = Path(path)
    if is_special(path):
        return None
    pages = read_pages(path)
    if not pages:
        return _of_screen(path)
    page = pages[0]
    x, y = page.resolution or (None, None)
    claims = [*of_description(page.description, x, y), *of_tags(x, y, page.unit)]
    evidence = Evidence(
        tuple(claims),
        power_in(page.description),
        (page.width, page.height),
        described_size(page.description),
    )
    return decide(evidence, name=str(path)) if any(c.serious for c in claims) else None


def _of_screen(path: Path) -> Mpp | None:
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    try:
        with path.open("rb") as stream:
            kind: type[Image.Image] = PngImagePlugin.PngImageFile
            if stream.read(2) == b"\xff\xd8":
                kind = JpegImagePlugin.JpegImageFile
            stream.seek(0)
            dpi: tuple[float, float] = kind(stream).info["dpi"]  # type: ignore[call-arg]
        claim = Claim("dpi", 25_400 / dpi[0], 25_400 / dpi[1], "screen")
    except Exception:  # damaged, or neither of the two: no scale
        return None
    low, high = PLAUSIBLE["screen"]
    if not (low <= min(claim.x, claim.y) and max(claim.x, claim.y) <= high):
        return None
    try:
        return decide(Evidence((claim,)), name=str(path))
    except MissingMpp:  # pixels that are not square: no microscope wrote it
        return None
