"""Slides that OpenSlide would show wrongly or not at all, recognised from their headers."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import MissingMpp, SlideError
from pathencoder.formats import tiff_tags
from pathencoder.formats.file_kinds import SLIDE_SUFFIXES
from pathencoder.formats.image_scale import image_scale
from pathencoder.formats.tiff import planes_of
from pathencoder.formats.tiff_colours import mismatch, rewriting
from pathencoder.formats.tiff_tags import Page, is_reduced_copy, read_pages
from pathencoder.slides import dicom

if TYPE_CHECKING:
    from pathencoder.slides.reader import Slide

GREY_NOTE = "a grey slide: red, green and blue are the same"
_SAMPLES, _SAMPLE = 8, 256  # along a side; pixels of one
_DARK, _WHITE = 64, 255  # a quarter of the range, and its end
_RGB = 2  # as PhotometricInterpretation
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_IMAGES = {b"\xff\xd8\xff": "a JPEG image", b"\x89PNG": "a PNG image"}
_NOTABLE = 1 / 64  # share of the first image's pixels below which another is a label or thumbnail
_COPY_AGAIN = "Compare its size with the original, copy it again"
# What OpenSlide decodes: none, CCITT, LZW, JPEG, deflate, PackBits, JPEG 2000, Zstandard.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 50000})


def false_colours(file: Path) -> str:
    """Why OpenSlide would show false colours, and what to do.

    Args:
        file: A TIFF or DICOM file that OpenSlide has opened.

    Returns:
        A sentence; "" where nothing in the file says so.
    """
    if dicom.read_header(file):
        volumes = dicom.files_of_slide(file)[1]
        wrong = [f for f in volumes or [file] if _has_false_colours(f)]
        return _false_dicom(wrong) if wrong else ""
    return false_tiff(file)


def false_tiff(file: Path) -> str:
    """Why libtiff, which readers use, would show a TIFF with false colours; else ""."""
    if file.suffix.lower() == ".ndpi":  # its tiles are found in other ways than its tags say
        return ""
    every = read_pages(file)
    pages = [page for page in every if page.tiled == every[0].tiled]  # no thumbnails in strips
    with file.open("rb") as stream:
        wrong_page = next((how for page in pages if (how := mismatch(stream, page))), "")
    return f"{wrong_page}: its colours would be false. {_rewrite(file)}" if wrong_page else ""


def notes_on(file: Path) -> tuple[str, ...]:
    """How OpenSlide reads a TIFF that is not 8-bit colour, as sentences for the summary."""
    pages = read_pages(file)
    if not pages or not pages[0].tiled:
        return ()
    notes = []
    if pages[0].bits > 8:
        notes.append(f"{pages[0].bits} bits a sample: the upper 8 are read")
    if pages[0].samples < 3 and pages[0].photometric in (0, 1):
        notes.append(GREY_NOTE)
    return tuple(notes)


def unreadable(file: Path, *, generic: bool) -> str:
    """Why some of a TIFF's pages or samples would be read wrongly or not at all.

    Readers show one page of a generic TIFF, of at most four samples, and OpenSlide takes a fourth
    sample without a stated meaning for alpha.

    Args:
        file: Any file or folder.
        generic: The reader takes the first page, and not those that a scanner's format says.

    Returns:
        A sentence; "" where all is read.
    """
    pages = () if file.is_dir() else read_pages(file)
    if not pages:
        return ""
    first = pages[0]
    kind = (first.tiled, first.width, first.height)
    same = [p for p in pages if (p.tiled, p.width, p.height) == kind]
    count = max(len(same), planes_of(first))
    if generic and count > 1:
        return (
            f"it holds {count} images of {first.width} x {first.height} px (channels, focal"
            " planes or sections), of which one would be read. Save the one you need, as RGB, in a"
            " file of its own"
        )
    larger = [p for p in _others(file, pages) if _pixels(p) >= _pixels(first)] if generic else []
    if larger and (larger[0].tiled or not first.tiled):
        return (
            f"it holds several images, and the first, of {first.width} x {first.height} px, would"
            f" be read, not that of {larger[0].width} x {larger[0].height} px. Save each that you"
            " need in a file of its own"
        )
    rgb_and_one = first.samples == 4 and first.photometric == _RGB
    if first.samples > 4 or (rgb_and_one and not any(first.extra)):
        return f"{first.samples} channels, whose meaning it does not say. Save it as an RGB image"
    if first.bits > 16:
        return f"{first.bits} bits a sample: OpenSlide reads 8 and 16. Scale it to 8 bits first"
    return ""


def other_images(file: Path) -> tuple[str, ...]:
    """A note on images of a generic TIFF that are not read, such as a second section."""
    pages = read_pages(file)
    found = [p for p in _others(file, pages) if _pixels(p) >= _NOTABLE * _pixels(pages[0])]
    if not found:
        return ()
    sizes = ", ".join(f"{page.width} x {page.height}" for page in found[:3])
    more = ", ..." * (len(found) > 3)
    return (
        f"it also holds images that are not read ({sizes} px{more}): save each that you need in a"
        " file of its own",
    )


def _others(file: Path, pages: Sequence[Page]) -> list[Page]:
    """The pages of a generic TIFF that are neither its first image nor smaller copies of it."""
    if not pages or file.suffix.lower() in SLIDE_SUFFIXES:  # scanners add a label and an overview
        return []
    full = (pages[0].width, pages[0].height)
    return [
        page
        for page in pages[1:]
        if not page.reduced and not is_reduced_copy(full, (page.width, page.height))
    ]


def _pixels(page: Page) -> int:
    return page.width * page.height


def damaged_tiles(file: Path) -> str:
    """Why a TIFF must not be opened: its tags name tiles larger than any writer's; else ""."""
    if file.suffix.lower() == ".ndpi":  # what it calls a tile lies between marks of its JPEG
        return ""
    return _no_scanners(tiff_tags.oversized_tiles(read_pages(file)))


def oversized_tiles(properties: Mapping[str, str]) -> str:
    """Why reading would never end: a header that states larger tiles than any scanner writes.

    A damaged tile size makes OpenSlide decode the whole of such a tile for every small region.

    Args:
        properties: The properties that OpenSlide reads.

    Returns:
        A sentence; "" where the tiles have a usual size.
    """
    # a "tile" of this format is what lies between two restart markers
    if properties.get("openslide.vendor") == "hamamatsu":
        return ""
    for key, value in properties.items():
        level, _, side = key.removeprefix("openslide.").rpartition(".tile-")
        if side in ("width", "height") and value.isdigit() and int(value) > tiff_tags.LONGEST_TILE:
            return _no_scanners(f"{level} has tiles with a {side} of {value} px")
    return ""


def _no_scanners(found: str) -> str:
    if not found:
        return ""
    return f"{found}, which no scanner writes: its header is damaged. {_COPY_AGAIN}"


def blank(slide: Slide, file: Path) -> str:
    """Why a TIFF of more than 8 bits would be black, or one with alpha white; else "".

    OpenSlide keeps the upper 8 of 16 bits: of a camera's 12 bits it keeps 4.
    """
    pages = read_pages(file)
    if not pages or (pages[0].bits <= 8 and not pages[0].extra):
        return ""
    shown = [(int(region.min()), int(region.max())) for region in _samples(slide)]
    if pages[0].extra and shown and min(low for low, _ in shown) == _WHITE:
        return "its alpha channel hides all of it. Save it without alpha"
    highest = max((high for _, high in shown), default=_WHITE)
    if pages[0].bits <= 8 or highest >= _DARK:
        return ""
    return (
        f"its {pages[0].bits}-bit samples stay below {(highest + 1) * 256:,} of 65,536, as those of"
        " a camera with fewer bits do: read by their upper 8 bits it would be black. Scale it to 8"
        " bits first"
    )


def _samples(slide: Slide) -> Iterator[NDArray[np.uint8]]:
    """Readable regions of the coarsest level, spread over the slide."""
    level = len(slide.downsamples) - 1
    (width, height), factor = slide.size, slide.downsamples[level]
    for x in range(0, width, -(-width // _SAMPLES)):
        for y in range(0, height, -(-height // _SAMPLES)):
            w, h = (max(1, int((end - at) / factor)) for at, end in ((x, width), (y, height)))
            with contextlib.suppress(SlideError):
                yield slide.read(x, y, level, min(w, _SAMPLE), min(h, _SAMPLE))


def why_unsupported(file: Path) -> str:
    """What kind of file OpenSlide has refused, by its first bytes and tags, and what to do."""
    with file.open("rb") as stream:
        head = stream.read(16)
    if head[:4] in _TIFF_MARKS:
        pages = read_pages(file)
        return _why_tiff(file, pages[0]) if pages else f"a damaged TIFF. {_COPY_AGAIN}"
    for mark, kind in _IMAGES.items():
        if head.startswith(mark):
            return f"this is {kind}, not a slide. To encode it as an image: --as tiles"
    return f"not a slide that OpenSlide reads, or a damaged one. {_COPY_AGAIN}"


def why_unopenable(file: Path, error: Exception) -> str:
    """What is wrong with a slide whose format OpenSlide knows but which it cannot open."""
    reason = str(error).replace(f"Reading {file}: ", "").replace(f"file {file}", "the file")
    pages = read_pages(file)
    if pages and pages[0].compression not in _COMPRESSIONS:
        return _why_tiff(file, pages[0])
    remedy = _COPY_AGAIN
    if dicom.read_header(file):
        remedy = "Its header is not that of a DICOM slide, or damaged: convert the original again"
    return f"the slide cannot be opened: {reason}. {remedy}"


def _has_false_colours(file: Path) -> bool:
    header = dicom.read_header(file)
    return header is not None and header.false_colours


def _false_dicom(wrong: list[Path]) -> str:
    header = dicom.read_header(wrong[0])
    said, stored = (header.colours, header.stored) if header else ("", "")
    right = "YBR_FULL_422" if stored == "YCbCr" else "RGB"
    return (
        f"the header of {wrong[0].name} says {said}, and its JPEG frames hold {stored}: its colours"
        f" would be false. Set PhotometricInterpretation to {right} in a copy of"
        f" {len(wrong)} {'file' if len(wrong) == 1 else 'files'} (pydicom: d = dcmread(f);"
        f" d.PhotometricInterpretation = '{right}'; d.save_as(f)), or convert the original again"
    )


def _why_tiff(file: Path, page: Page) -> str:
    with file.open("rb") as stream:
        wrong = mismatch(stream, page)
    if wrong:
        writer = " (Bio-Formats writes so)" if "<OME" in page.description else ""
        return f"OpenSlide does not read it: {wrong}{writer}. {_rewrite(file)}"
    if page.compression not in _COMPRESSIONS:
        how = f"OpenSlide does not read TIFF compression {page.compression}"
        return f"{how}. Export it again with JPEG, LZW or deflate"
    if page.tiled:
        return f"OpenSlide does not read this TIFF, which may be damaged. {_COPY_AGAIN}"
    command = shlex.join(["vips", "tiffsave", str(file), "OUT.tif"])
    options = "--tile --pyramid --compression jpeg --Q 90"
    return (
        "OpenSlide reads tiled TIFFs, and this one is stored in strips. Rewrite it"
        f" ({command} {options}), then encode OUT.tif --as slides{_and_mpp(file)};"
        " or use --as tiles for a small image"
    )


def _rewrite(file: Path) -> str:
    return f"{rewriting(str(file))}, then encode OUT.tif --as slides{_and_mpp(file)}"


def _and_mpp(file: Path) -> str:
    """The --mpp option for a rewritten file, which has lost its scale."""
    try:
        scale = image_scale(file)
    except MissingMpp:
        scale = None
    return f" --mpp {scale.value:.4g}" if scale else " --mpp and its micrometres per pixel"
