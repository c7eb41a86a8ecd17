"""Read the tags of a TIFF's pages: size, structure, resolution, description; no pixels.

Pillow and OpenSlide refuse some TIFFs as a whole (16 bits in planes, JPEG of unusual colours);
their tags can still be read. Only the standard library is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pathencoder.walk import is_special

_MOST_PAGES = 256  # enough to see the structure of a file; a stack may have thousands
_MOST_TAGS = 4096
_MOST_TEXT = 16 << 20  # bytes of one text: OME-XML of many planes reaches megabytes
_MOST_NUMBERS = 64  # of one tag: more than is needed here
_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_CODES |= {16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5: "I", 10: "i"}
_TEXTS = (2, 7)
_SUBIFDS = 330
_WANTED = frozenset({254, 255, 256, 257, 258, 259, 262, 270, 273, 277, 279, 282, 283, 284, 296})
_WANTED |= {322, 323, 324, 325, 330, 338}

LONGEST_TILE = 16_384  # px; scanners write 240 to 1,024, and whole strips of up to 8,192

_Value = tuple[float, ...] | str
_Tags = dict[int, _Value]


@dataclass(frozen=True)
class Page:
    """One image of a TIFF.

    Attributes:
        width: In pixels.
        height: In pixels.
        tiled: Stored in tiles, not in strips.
        tile: Width and height of its tiles; (0, 0) for strips.
        resolution: Pixels per unit in x and y; None where a tag is missing or not above 0.
        unit: "inch", "centimeter" or "none"; "inch" where the tag is missing, as in TIFF 6.0.
        description: ImageDescription; bytes that are not text are replaced.
        bits: Of one sample.
        samples: Of one pixel.
        compression: The tag's number; 7 is JPEG.
        photometric: The tag's number; 0 min-is-white, 1 grey, 2 RGB, 6 YCbCr.
        planar: Whether each sample has its own plane.
        first_data: Offset and length of the first tile or strip in bytes; None where missing.
        extra: Meaning of the samples beyond the colours: 0 is unspecified, 1 and 2 are alpha.
        reduced: Marked as a smaller copy of another page (a preview, a level of a pyramid).
    """

    width: int
    height: int
    tiled: bool
    resolution: tuple[float, float] | None
    unit: str
    description: str
    bits: int
    samples: int
    compression: int
    photometric: int
    planar: bool
    first_data: tuple[int, int] | None
    extra: tuple[int, ...] = ()
    reduced: bool = False
    tile: tuple[int, int] = (0, 0)


def read_pages(path: Path) -> tuple[Page, ...]:
    """The pages of a TIFF or BigTIFF in file order, those in SubIFDs after their parent.

    Args:
        path: Any file.

    Returns:
        At most 256 pages; of a damaged file those before the damage; empty for other files.
    """
    if is_special(path):
        return ()
    try:
        with path.open("rb") as stream:
            return pages_in(stream)
    except OSError:
        return ()  # the reader of the image reports the error


def pages_in(stream: BinaryIO) -> tuple[Page, ...]:
    """`read_pages` of an open file, from its beginning."""
    pages: list[Page] = []
    try:
        stream.seek(0)
        pages.extend(_pages(stream))
    except (OSError, struct.error, ValueError, OverflowError):
        pass  # keep what was read; the reader of the image reports the error
    return tuple(pages)


def is_pyramid(pages: tuple[Page, ...]) -> bool:
    """Whether the first page is tiled and smaller copies of it follow, as in a slide."""
    return len(pages) > 1 and pages[0].tiled and any(_reduced(pages[0], p) for p in pages[1:])


def levels_in(pages: tuple[Page, ...]) -> int:
    """The number of levels of a tiled TIFF: its first page and the tiled smaller copies of it."""
    if not pages or not pages[0].tiled:
        return 1
    return 1 + sum(page.tiled and _reduced(pages[0], page) for page in pages[1:])


def is_reduced_copy(full: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a size is smaller than another, with its aspect ratio (to 2 % or one pixel)."""
    if not (0 < size[0] < full[0] and 0 < size[1] < full[1]):
        return False
    expected = full[1] * size[0] / full[0]
    return abs(expected - size[1]) <= max(1.0, 0.02 * expected)


def _reduced(first: Page, page: Page) -> bool:
    return is_reduced_copy((first.width, first.height), (page.width, page.height))


@dataclass(frozen=True)
class _Form:
    """Number format of a file: byte order, and the widths of classic TIFF or BigTIFF."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return "Q" if self.big else "I"

    @property
    def entry(self) -> str:
        """Tag, type, count; the value or its offset follows."""
        return "HHQ" if self.big else "HHI"

    def read(self, stream: BinaryIO, code: str) -> tuple[int, ...]:
        fields = struct.Struct(self.order + code)
        return fields.unpack(stream.read(fields.size))


def _pages(stream: BinaryIO) -> Iterator[Page]:
    form, offset = _form(stream)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        tags, offset = _directory(stream, form, offset)
        yield from _page(tags)
        for inner in _numbers(tags, _SUBIFDS):
            if int(inner) not in seen and len(seen) < _MOST_PAGES:
                seen.add(int(inner))
                yield from _page(_directory(stream, form, int(inner))[0])


def _form(stream: BinaryIO) -> tuple[_Form, int]:
    """The number format of a file and the offset of its first page.

    Raises ValueError for a file that is not a TIFF.
    """
    order = {b"II": "<", b"MM": ">"}.get(stream.read(2))
    if order is not None:
        classic, big = _Form(order, big=False), _Form(order, big=True)
        version = classic.read(stream, "H")[0]
        if version == 42:
            return classic, classic.read(stream, "I")[0]
        if version == 43:
            return big, big.read(stream, "HHQ")[2]
    raise ValueError("not a TIFF")


def _directory(stream: BinaryIO, form: _Form, offset: int) -> tuple[_Tags, int]:
    """The wanted tags of one page, and the offset of the next page (0: the last one)."""
    stream.seek(offset)
    (count,) = form.read(stream, "Q" if form.big else "H")
    if count > _MOST_TAGS:
        raise ValueError("damaged directory")
    head = struct.calcsize(form.order + form.entry)
    width = head + struct.calcsize(form.order + form.offset)
    entries = stream.read(count * width)
    last = stream.read(width - head)
    tags: _Tags = {}
    for start in range(0, len(entries) - width + 1, width):
        entry = entries[start : start + width]
        tag, kind, length = struct.unpack(form.order + form.entry, entry[:head])
        if tag in _WANTED and (kind in _CODES or kind in _RATIONALS or kind in _TEXTS):
            tags[tag] = _value(stream, form, kind, length, entry[head:])
    whole = len(last) == width - head
    return tags, struct.unpack(form.order + form.offset, last)[0] if whole else 0


def _value(stream: BinaryIO, form: _Form, kind: int, length: int, field: bytes) -> _Value:
    """A tag's text, or its first numbers; short values are stored in the entry itself."""
    code = _CODES.get(kind) or 2 * _RATIONALS.get(kind, "") or "s"
    each = struct.calcsize(form.order + code)
    size = each * min(length, _MOST_TEXT if kind in _TEXTS else _MOST_NUMBERS)
    data = field[:size]
    if length * each > len(field):
        stream.seek(struct.unpack(form.order + form.offset, field)[0])
        data = stream.read(size)
    if kind in _TEXTS:
        return data.split(b"\0")[0].decode("utf-8", "replace")
    found = struct.unpack(form.order + len(data) // each * code, data[: len(data) // each * each])
    if kind in _RATIONALS:
        return tuple(a / b if b else 0.0 for a, b in zip(found[::2], found[1::2], strict=True))
    return tuple(found)


def _page(tags: _Tags) -> Iterator[Page]:
    """The page that tags describe; nothing without a size."""
    width, height = _number(tags, 256), _number(tags, 257)
    if width < 1 or height < 1:
        return
    description = tags.get(270)
    x, y = _resolution(tags, 282), _resolution(tags, 283)
    places = (324, 325) if 322 in tags else (273, 279)
    data = (_number(tags, places[0]), _number(tags, places[1]))
    yield Page(
        width=width,
        height=height,
        tiled=322 in tags,
        resolution=(x, y) if x and y else None,
        unit=_UNITS.get(_number(tags, 296, 2), "none"),
        description=description if isinstance(description, str) else "",
        bits=_number(tags, 258, 1),
        samples=_number(tags, 277, 1),
        compression=_number(tags, 259, 1),
        photometric=_number(tags, 262),
        planar=_number(tags, 284, 1) == 2,
        first_data=data if all(data) else None,
        extra=tuple(int(value) for value in _numbers(tags, 338)),
        tile=(_number(tags, 322), _number(tags, 323)),
        reduced=bool(_number(tags, 254) & 1) or _number(tags, 255) == 2,
    )


def _numbers(tags: _Tags, tag: int) -> tuple[float, ...]:
    value = tags.get(tag)
    return value if isinstance(value, tuple) else ()


def oversized_tiles(pages: Iterable[Page]) -> str:
    """Which page has tiles larger than any writer's, in words; "" where none has.

    A reader allocates such a tile when it opens the file, which can take gigabytes.
    """
    for number, page in enumerate(pages, 1):
        if max(page.tile) > LONGEST_TILE:
            return f"page {number} has tiles with a side of {max(page.tile)} px"
    return ""


def _number(tags: _Tags, tag: int, default: int = 0) -> int:
    values = _numbers(tags, tag)
    return int(values[0]) if values else default


def _resolution(tags: _Tags, tag: int) -> float | None:
    values = _numbers(tags, tag)
    return values[0] if values and 0 < values[0] < float("inf") else None
