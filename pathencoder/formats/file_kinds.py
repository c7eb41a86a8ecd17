"""Tell slides from images by name and header, without a slide reader."""

from __future__ import annotations

from pathlib import Path

from pathencoder.formats.tiff_tags import is_pyramid, read_pages

_OPENSLIDE = ".svs .ndpi .mrxs .scn .bif .dcm .vms .vmu .svslide"
OPENSLIDE = "pathencoder.slides.openslide_reader"
# The reader of each format: a module with `open_file(path) -> Slide`. TIFFs go to OpenSlide.
READERS = dict.fromkeys(_OPENSLIDE.split(), OPENSLIDE)
SLIDE_SUFFIXES = frozenset(READERS)
# Slide formats without a reader here: named in the summary.
_FOREIGN = ".vsi .isyntax .i2syntax .kfb .sdpc .mdsx .tmap .czi .lif"
FOREIGN_SUFFIXES = frozenset(_FOREIGN.split())
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
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


def is_slide_tiff(path: Path) -> bool:
    """Whether a TIFF is a tiled pyramid, or longer than 4,096 px on a side. Reads its tags only."""
    pages = read_pages(path)
    if not pages:
        return False
    return is_pyramid(pages) or max(pages[0].width, pages[0].height) > SLIDE_PIXELS
