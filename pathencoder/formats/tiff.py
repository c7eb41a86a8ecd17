"""Check what a TIFF holds, and read the kinds that Pillow does not read correctly.

Those are read with tifffile (the extra `tiff`), which returns the stored numbers of every kind.
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from pathencoder import arrays
from pathencoder.arrays import Pixels
from pathencoder.bit_depth import MAXIMA, Range
from pathencoder.errors import ImageError, MissingExtra
from pathencoder.formats.tiff_colours import mismatch, rewriting
from pathencoder.formats.tiff_tags import Page, is_pyramid, oversized_tiles, pages_in

Tags = Mapping[int, Any]  # by the numbers of TIFF 6.0

_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 258, 259, 262, 274, 277
_MIN_SAMPLE, _MAX_SAMPLE, _PLANAR, _COLOUR_MAP, _INK_SET = 280, 281, 284, 320, 332
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _S_MIN_SAMPLE, _S_MAX_SAMPLE = 338, 339, 340, 341
_SUBSAMPLING, _DEPTH, _METAMORPH_PLANES = 530, 32997, 33629
_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_LAB = (8, 9, 10)
_SIGNED, _BYTE = 2, 8
_MOST_BITS = 64  # a damaged file says millions
_ALPHA = ((1,), (2,))  # first value of ExtraSamples: associated and unassociated alpha
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_pages(stream: BinaryIO, where: str, name: str) -> None:
    """Check the pages of a file.

    Args:
        stream: The open file; its position does not change.
        where: What an error calls it.
        name: Its name, for a command.

    Raises:
        ImageError: It holds several images, begins with a preview, is a slide, or its JPEG data
            have other colours than its header states.
    """
    at = stream.tell()
    pages = pages_in(stream)
    wrong = mismatch(stream, pages[0]) if pages else ""
    stream.seek(at)
    if not pages:
        return
    if oversized := oversized_tiles(pages):
        raise ImageError(f"{where}: {oversized}, which no program writes: its header is damaged")
    if is_pyramid(pages):
        raise arrays.slide_error(where, name)
    images = [page for page in pages if not page.reduced]
    if pages[0].reduced and images:
        raise ImageError(
            f"{where}: its first page is a preview of another. Save that one as a separate file"
        )
    count = len(images) if len(images) > 1 else planes_of(pages[0])
    if count > 1:
        sizes = ", ".join(dict.fromkeys(f"{page.width} x {page.height} px" for page in images))
        advice = (
            "save the one you need as a separate file (channels: as one RGB image), or split them"
        )
        raise ImageError(f"{where}: it holds {count} pages or planes ({sizes}): {advice}")
    if wrong:
        raise ImageError(f"{where}: {wrong}: its colours would be false. {rewriting(name)}")


def check_colours(tags: Tags, where: str) -> None:
    """Check the colours of a page.

    Raises:
        ImageError: Neither Pillow nor tifffile converts them correctly.
    """
    reason = _unknown_colours(tags)
    if reason:
        raise ImageError(f"{where}: {reason}. Save it as an RGB image")


def says_alpha(tags: Tags) -> bool:
    """Whether a page states the meaning of its extra channels."""
    return _EXTRA_SAMPLES in tags


def misread(tags: Tags) -> str:
    """Why Pillow reads a page incorrectly; "" where it does not."""
    bits, samples = max(_numbers(tags, _BITS, 1)), _number(tags, _SAMPLES, 1)
    if _number(tags, _PHOTOMETRIC, _GREY) == _WHITE_IS_ZERO and bits > _BYTE:
        return f"{bits}-bit min-is-white"
    if samples > 1 and bits > _BYTE:
        if _number(tags, _PLANAR, 1) == 2:
            return f"{bits} bits in separate planes"
        if stated_range(tags).stated:
            return "colours of a stated range"
    if bits == _BYTE and _SIGNED in _numbers(tags, _SAMPLE_FORMAT, 1):
        return "signed 8 bits"
    return ""


def stated_range(tags: Tags) -> Range:
    """The range of a page's values: by its tags, else by its type.

    The tag of the largest value counts only where it is one less than a power of two: some
    programs write the maximum of the image there.
    """
    bits, signed = (
        min(max(_numbers(tags, _BITS, 1)), _MOST_BITS),
        _SIGNED in _numbers(tags, _SAMPLE_FORMAT, 1),
    )
    by_type = 2 ** (bits - signed) - 1
    lows = _numbers(tags, _S_MIN_SAMPLE) + _numbers(tags, _MIN_SAMPLE)
    tops = _numbers(tags, _S_MAX_SAMPLE) + _numbers(tags, _MAX_SAMPLE)
    top = max(tops, default=0)
    if top in MAXIMA and top < by_type and not any(lows):
        return Range(int(top), stated=True)
    return Range(by_type, stated=bits not in (8, 16, 32, 64))


def read(stream: BinaryIO, where: str, reason: str, index: int = 0) -> Pixels:
    """Read one page with tifffile.

    Args:
        stream: The open file.
        where: What an error calls it.
        reason: Why Pillow cannot read it, for the error if tifffile is missing.
        index: Of the page.

    Returns:
        uint8 RGB [H, W, 3], upright.

    Raises:
        ImageError: tifffile is missing, or the page is damaged or not supported.
    """
    missing = MissingExtra.of("tiff", f"A TIFF of this kind ({reason})")
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ImportError as error:
        raise ImageError(f"{where}: {missing}") from error
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages[index]
        tags = {tag.code: tag.value for tag in page.tags}
        check_colours(tags, where)
        arrays.check_size(page.imagewidth, page.imagelength, where)
        try:
            stored = page.asarray()
        except ValueError as error:  # tifffile leaves most compressions to another package
            raise ImageError(
                f"{where}: {missing if 'imagecodecs' in str(error) else error}"
            ) from error
        values = _channels_last(stored, page.axes, where)
        if not values.size:
            raise ImageError(
                f"{where}: its page holds no pixels: the file is truncated or damaged, copy it"
                " again from its source"
            )
    pixels = _to_pixels(values, tags, where)
    turn = _TURNS.get(_number(tags, _ORIENTATION, 1))
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def planes_of(page: Page) -> int:
    """Number of images in one page by its description, as ImageJ and tifffile store stacks."""
    text = page.description
    if text.startswith("ImageJ="):
        found = re.search(r"^images=(\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 1
    if text.startswith('{"shape":'):
        try:
            values = math.prod(json.loads(text)["shape"])
        except (ValueError, TypeError, KeyError):
            return 1
        return int(values) // (page.width * page.height * page.samples)
    return 1


def _unknown_colours(tags: Tags) -> str:
    """What is wrong with the colours of a page; "" for nothing."""
    colour, samples = _number(tags, _PHOTOMETRIC, -1), _number(tags, _SAMPLES, 1)
    extra = _numbers(tags, _EXTRA_SAMPLES)
    planes = max(_number(tags, _DEPTH, 1), len(_numbers(tags, _METAMORPH_PLANES)))
    if planes > 1:
        return f"one page holds {planes} planes"
    if samples > (5 if colour == _CMYK else 4):  # with alpha
        return f"it holds {samples} channels, more than an RGB image has"
    if colour == -1:
        return "the file does not state its colour space (no PhotometricInterpretation)"
    if (
        colour in (_WHITE_IS_ZERO, _GREY)
        and samples > 1
        and not (samples == 2 and extra[:1] in _ALPHA)
    ):
        return f"it holds {samples} channels without colours"
    if colour in _LAB:
        return "its colours are L*a*b*"
    if colour == _CMYK and _number(tags, _INK_SET, 1) != 1:
        return "its channels are spot inks"
    if (
        colour == _YCBCR
        and _number(tags, _COMPRESSION, 1) == 1
        and _numbers(tags, _SUBSAMPLING, 2) != (1, 1)
    ):
        return "uncompressed YCbCr with subsampled colours"
    palette = _numbers(tags, _COLOUR_MAP)
    if colour == _PALETTE and palette and max(palette) < 256:
        return "its palette holds 8-bit numbers where 16 bits belong"
    return ""


def _channels_last(values: npt.NDArray[Any], axes: str, where: str) -> npt.NDArray[Any]:
    if axes == "SYX":
        return np.moveaxis(values, 0, -1)
    if axes in ("YX", "YXS"):
        return values
    raise ImageError(f"{where}: a page of axes {axes}: save it as one RGB image")


def _to_pixels(values: npt.NDArray[Any], tags: Tags, where: str) -> Pixels:
    """Convert stored numbers to RGB by photometric interpretation, range and alpha."""
    values, limits = _with_alpha_or_none(values, tags, where), stated_range(tags)
    colours = arrays.without_alpha(values)
    bounds = (colours.min(), colours.max())
    if values.dtype.kind == "f":
        if limits.stated:
            values = values / np.float32(limits.top)
            bounds = (bounds[0] / limits.top, bounds[1] / limits.top)
        levels = arrays.from_float(
            values, where, arrays.finite_bounds(arrays.without_alpha(values))
        )
    elif values.dtype == np.uint8:
        levels = values
    elif values.dtype.kind in "iu":
        levels = arrays.from_whole(values, where, bounds, limits)
    else:
        raise ImageError(
            f"{where}: numbers of type {values.dtype} are not supported. Save it as 8-bit RGB"
        )
    if _number(tags, _PHOTOMETRIC, _GREY) == _WHITE_IS_ZERO:
        levels = 255 - levels
    return np.ascontiguousarray(arrays.to_rgb(levels, where))


def _with_alpha_or_none(values: npt.NDArray[Any], tags: Tags, where: str) -> npt.NDArray[Any]:
    """HxW, HxWx3, or HxWx4 where the last is alpha; other extra channels are left out."""
    colour, extra = _number(tags, _PHOTOMETRIC, _GREY), _numbers(tags, _EXTRA_SAMPLES)
    wanted = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3}.get(colour)
    if wanted is None:
        raise ImageError(
            f"{where}: its colours (PhotometricInterpretation {colour}) are not supported. Save it"
            " as RGB"
        )
    if values.ndim == 2:
        return values
    alpha = extra[:1] in _ALPHA and values.shape[2] > wanted
    if wanted == 1:
        return np.repeat(values[..., :1], 3, axis=2) if not alpha else values[..., [0, 0, 0, 1]]
    return values[..., : 3 + alpha]


def _numbers(tags: Tags, tag: int, *default: int) -> tuple[Any, ...]:
    """A tag's values; the default without such a tag."""
    value = tags.get(tag)
    if value is None:
        return default
    return tuple(value) if isinstance(value, tuple | list | np.ndarray | bytes) else (value,)


def _number(tags: Tags, tag: int, default: int) -> int:
    values = _numbers(tags, tag)
    return int(values[0]) if values else default
