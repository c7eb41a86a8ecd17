"""Tissue masks against outlines drawn by hand, and the recipes that other tools use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pathencoder.errors import ConfigError, MissingExtra, SlideError
from pathencoder.slides.tissue import tissue_mask

RGB = NDArray[np.uint8]
Mask = NDArray[np.bool_]
OUTLINES = Path(__file__).parent / "tissue_outlines"
SIDE = 1000  # pixels of the longer side at which masks are compared; smaller pictures stay
MPP = 8.0  # the scale of these pictures is unknown; recipes that need one get this


@dataclass(frozen=True)
class Drawn:
    """A picture and what was drawn on it.

    Attributes:
        name: Of its outlines.
        half: "choice" or "kept".
        stain: "he" or "ihc".
        image: uint8 [h, w, 3].
        tissue: bool [h, w].
        scored: False where two people would disagree, and for pen on tissue: bool [h, w].
        pen: Pen on glass: bool [h, w].
    """

    name: str
    half: str
    stain: str
    image: RGB
    tissue: Mask
    scored: Mask
    pen: Mask


def read_drawn(outlines: Path, slides: Path) -> Drawn:
    """Read a picture and its outlines.

    Args:
        outlines: A GeoJSON file of `OUTLINES`.
        slides: Folder of the pictures.

    Returns:
        Both, at most `SIDE` pixels wide and high.

    Raises:
        ConfigError: The picture is missing.
        SlideError: It cannot be read.
    """
    found = json.loads(outlines.read_text())
    path = slides / found["picture"]
    if not path.exists():
        raise ConfigError(f"{path}: the picture of {outlines.name} is missing; see --data")
    image = _picture(path)
    height, width = image.shape[:2]
    scale = width / found["size"][0]
    drawn = {name: Image.new("1", (width, height)) for name in ("Tissue", "Ignore", "Pen")}
    for feature in found["features"]:
        name = feature["properties"]["classification"]["name"]
        on, fill = ("Tissue", 0) if name == "Hole" else (name, 1)
        _draw(drawn[on], feature, scale, fill)
    tissue, ignore, pen = (np.asarray(mask) for mask in drawn.values())
    return Drawn(
        name=outlines.stem,
        half=found["half"],
        stain=found["stain"],
        image=image,
        tissue=tissue,
        scored=~(ignore | (pen & tissue)),
        pen=pen & ~tissue & ~ignore,
    )


def _picture(path: Path) -> RGB:
    """The whole picture in RGB on white, its longer side at most `SIDE` pixels."""
    try:
        image: Image.Image
        if path.suffix in (".svs", ".tiff"):
            import openslide

            with openslide.OpenSlide(path) as slide:
                image = slide.get_thumbnail((SIDE, SIDE))
        else:
            image = Image.open(path)
        image.thumbnail((SIDE, SIDE))
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    except ImportError as error:
        raise MissingExtra.of("wsi", f"Reading {path.name}") from error
    except Exception as error:
        raise SlideError(f"{path}: {error}") from error


def _draw(
    mask: Image.Image, feature: dict[str, dict[str, object]], scale: float, fill: int
) -> None:
    geometry, canvas = feature["geometry"], ImageDraw.Draw(mask)
    points = np.asarray(
        geometry["coordinates"] if geometry["type"] == "LineString" else geometry["coordinates"][0],  # type: ignore[index]
        np.float64,
    )
    line = [(float(x), float(y)) for x, y in points * scale]
    if geometry["type"] == "Polygon":
        canvas.polygon(line, fill=fill)
        return
    width = float(feature["properties"]["width"]) * scale  # type: ignore[arg-type]
    canvas.line(line, fill=fill, width=max(1, round(width)), joint="curve")
    for x, y in (line[0], line[-1]):  # round ends
        canvas.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=fill)


def iou(mask: Mask, drawn: Drawn) -> float:
    """Intersection over union of tissue where it is scored; 1 if both are empty."""
    found, true = mask & drawn.scored, drawn.tissue & drawn.scored
    union = int((found | true).sum())
    return float((found & true).sum()) / union if union else 1.0


def saturation(image: RGB) -> NDArray[np.uint8]:
    """The saturation of HSV, median-filtered as CLAM does: uint8 [h, w]."""
    channel = Image.fromarray(image).convert("HSV").getchannel(1)
    return np.asarray(channel.filter(ImageFilter.MedianFilter(7)))


def clam(image: RGB) -> Mask:
    """CLAM's default for a thumbnail: saturation above 8, closing of 4."""
    binary = Image.fromarray(255 * (saturation(image) > 8).astype(np.uint8))
    return np.asarray(binary.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.MinFilter(5))) > 0


def otsu(image: RGB) -> Mask:
    """Otsu's threshold of the same saturation."""
    from skimage.filters import threshold_otsu

    values = saturation(image)
    if values.min() == values.max():
        return np.zeros(values.shape, np.bool_)
    above: Mask = values > threshold_otsu(values)
    return above


def two_pass(image: RGB) -> Mask:
    """TRIDENT's recipe without a network: Otsu on grey levels, twice.

    Grey (saturation of at most 10, value of at least 70) and dark (value of at most 85) pixels
    become white; what is brighter than a first threshold becomes white as well; the second
    threshold is taken on what is left. Specks of 60 pixels go, holes of 5,000 are filled.
    """
    from skimage.color import rgb2gray
    from skimage.filters import threshold_otsu
    from skimage.morphology import remove_small_holes, remove_small_objects

    hsv = np.asarray(Image.fromarray(image).convert("HSV"))
    whitened = image.copy()
    whitened[((hsv[..., 1] <= 10) & (hsv[..., 2] >= 70)) | (hsv[..., 2] <= 85)] = 255
    for last in (False, True):
        grey = 255 * rgb2gray(whitened)
        if grey.min() == grey.max():
            return np.zeros(grey.shape, np.bool_)
        below = grey < threshold_otsu(grey)
        below = (
            remove_small_holes(below, max_size=5000)
            if last
            else remove_small_objects(below, max_size=60)
        )
        whitened = np.where(below[..., None], image, 255).astype(np.uint8)
    mask: Mask = below
    return mask


def ours(image: RGB) -> Mask:
    """`pathencoder.slides.tissue.tissue_mask` at an assumed 8 um a pixel."""
    return tissue_mask(image, MPP)


RECIPES: dict[str, Callable[[RGB], Mask]] = {
    "pathencoder": ours,
    "CLAM saturation": clam,
    "Otsu": otsu,
    "TRIDENT two-pass": two_pass,
}
