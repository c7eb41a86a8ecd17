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
    evidence = evidence_of(path)
    if read_pages(path):
        return decide(evidence, name=str(path)) if any(c.serious for c in evidence.claims) else None
    try:
        return decide(evidence, name=str(path)) if evidence.claims else None
    except MissingMpp:  # pixels that are not square: no microscope wrote it
        return None


def evidence_of(path: Path) -> Evidence:
    """All that the header of an image file states about its scale.

    Args:
        path: An image file of any kind. Of a TIFF the first page counts.

    Returns:
        The evidence, without claims where the file states none or cannot be read.
    """
    pages = read_pages(path)
    if not pages:
        return Evidence(tuple(_of_screen(path)))
    page = pages[0]
    x, y = page.resolution or (None, None)
    claims = [*of_description(page.description, x, y), *of_tags(x, y, page.unit)]
    return Evidence(
        tuple(claims),
        power_in(page.description),
        (page.width, page.height),
        described_size(page.description),
    )


def _of_screen(path: Path) -> list[Claim]:
    """The resolution of a PNG or JPEG, where it is one that a microscope may have."""
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
        return []
    low, high = PLAUSIBLE["screen"]
    return [claim] if low <= min(claim.x, claim.y) and max(claim.x, claim.y) <= high else []
