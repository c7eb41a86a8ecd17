"""Tell slides from images by name and header, and which readers a slide is given to."""

from __future__ import annotations

import warnings
from pathlib import Path

from pathencoder.formats.tiff_tags import is_pyramid, read_pages

# A reader is a module with `open_file(path) -> Slide`.
OPENSLIDE = "pathencoder.slides.openslide_reader"
FASTSLIDE = "pathencoder.slides.fastslide_reader"
TIFFFILE = "pathencoder.slides.tiff_reader"
IMAGE = "pathencoder.slides.image_reader"

_OPENSLIDE = ".svs .ndpi .mrxs .scn .bif .dcm .vms .vmu .svslide"
_FASTSLIDE = ".vsi .isyntax .i2syntax .czi .qptiff"  # formats that OpenSlide does not have
_IMAGES = ".jpg .jpeg .png .webp .bmp"
# The readers of each format, in the order in which they are tried. tifffile takes the first page,
# which in .bif and .scn is the label. It comes before fastslide, which fills the rest of a JPEG
# tile that was cut off with grey.
READERS = {
    **dict.fromkeys(_OPENSLIDE.split(), (OPENSLIDE, FASTSLIDE)),
    ".svs": (OPENSLIDE, TIFFFILE, FASTSLIDE),
    **dict.fromkeys(_FASTSLIDE.split(), (FASTSLIDE,)),
}
SLIDE_SUFFIXES = frozenset(READERS)
READERS |= dict.fromkeys(_IMAGES.split(), (IMAGE,))  # with --as slides
OTHERS = (OPENSLIDE, TIFFFILE, FASTSLIDE, IMAGE)  # of TIFFs, and of names that say nothing
# Slide formats without a reader here: named in the summary.
_FOREIGN = ".kfb .sdpc .mdsx .tmap .lif"
FOREIGN_SUFFIXES = frozenset(_FOREIGN.split())
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
PLAIN_SUFFIXES = frozenset(_IMAGES.split())
SLIDE_PIXELS = 4096  # a TIFF with a longer side is no tile


def looks_like_slide(path: str | Path) -> bool:
    """Whether a file is a slide, by its name, or for a TIFF by its structure.

    Args:
        path: Any path. Of a TIFF the tags are read. Folders, missing files and damaged TIFFs do
            not count as slides.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return path.is_file() and is_slide_tiff(path)
    return suffix in SLIDE_SUFFIXES | FOREIGN_SUFFIXES and not path.is_dir()


def is_large_image(path: Path) -> bool:
    """Whether a plain image is longer than 4,096 px on a side, by its header."""
    if path.suffix.lower() not in PLAIN_SUFFIXES:
        return False
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return max(image.size) > SLIDE_PIXELS
        except Image.DecompressionBombError:
            return True
        except Exception:  # damaged, or no image
            return False


def is_slide_tiff(path: Path) -> bool:
    """Whether a TIFF is a tiled pyramid, or longer than 4,096 px on a side. Reads its tags only."""
    pages = read_pages(path)
    if not pages:
        return False
    return is_pyramid(pages) or max(pages[0].width, pages[0].height) > SLIDE_PIXELS
