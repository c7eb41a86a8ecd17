"""MoNuSAC from a local copy, as eva 0.4.5 reads it: images and class masks.

Its training archive is train, its testing archive val. Masks are drawn from the outlines in the XML
files, a later outline over an earlier one. Classes other than the four are "Ambiguous": they are
not learned, but count as false positives where a class is predicted, in eva as here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError
from pathencoder.heads.data.outlines import ImageScope
from training.evaluation.eva.eva_set import EvaImages

CLASSES = ("Background", "Epithelial", "Lymphocyte", "Neutrophil", "Macrophage")
AMBIGUOUS = len(CLASSES)
_FOLDERS = {
    "MoNuSAC_images_and_annotations": "train",
    "MoNuSAC Testing Data and Annotations": "val",
}
_SHOWN = 3
_DOWNLOAD = (
    "Unpack MoNuSAC_images_and_annotations.zip and 'MoNuSAC Testing Data and Annotations.zip' of"
    " https://monusac-2020.grand-challenge.org/Data/ into it"
)


def read_monusac(folder: Path) -> EvaImages:
    """The images of both archives, each with its XML file.

    Args:
        folder: Holds both unpacked archives.

    Raises:
        ConfigError: An archive or the XML file of an image is missing.
    """
    images: list[Path] = []
    parts: list[str] = []
    for name, part in _FOLDERS.items():
        found = sorted((folder / name).glob("**/*.tif"), key=str)
        if not found:
            raise ConfigError(f"{folder} does not hold MoNuSAC: no .tif below {name}. {_DOWNLOAD}")
        images += found
        parts += [part] * len(found)
    bare = [file for file in images if not outlines_of(file).is_file()]
    if bare:
        shown = ", ".join(str(outlines_of(file).relative_to(folder)) for file in bare[:_SHOWN])
        raise ConfigError(
            f"{folder}: {len(bare)} of {len(images)} images have no outlines beside them: {shown}"
            f"{' ...' if len(bare) > _SHOWN else ''}. {_DOWNLOAD}"
        )
    files = [*images, *map(outlines_of, images)]
    return EvaImages(images, [""] * len(images), parts, files)


def outlines_of(image: Path) -> Path:
    """The XML file beside an image."""
    return image.with_suffix(".xml")


def mask_of(image: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The class of each pixel [H, W]: its place in `CLASSES`, or `AMBIGUOUS`.

    Args:
        image: The image's file.
        shape: Its height and width.

    Raises:
        ImageError: The XML file cannot be read.
    """
    from skimage import draw

    mask = np.zeros(shape, np.uint8)
    for area in ImageScope(outlines_of(image)).read(1.0).areas:
        number = CLASSES.index(area.name) if area.name in CLASSES else AMBIGUOUS
        for outer, *_ in area.polygons:
            columns, rows = draw.polygon(outer[:, 0], outer[:, 1], shape[::-1])
            mask[rows, columns] = number
    return mask
