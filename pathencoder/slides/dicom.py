"""The header of a DICOM file: its series, its kind of image, its colours.

A small reader of DICOM parts 5 and 10 (tags in ascending order, explicit or implicit value
representations). No pixel is decoded.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pathencoder.errors import SlideError
from pathencoder.formats.jpeg_colours import jpeg_colours

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN"})
_LONG |= {b"UR", b"UT", b"UV"}
_PIXELS = (0x7FE0, 0x0010)
_WANTED = {
    (0x0002, 0x0010): "syntax",
    (0x0008, 0x0008): "kind",
    (0x0020, 0x000E): "series",
    (0x0020, 0x9161): "concatenation",
    (0x0020, 0x9311): "organization",
    (0x0028, 0x0004): "colours",
    (0x0028, 0x0008): "frames",
}
_NUMBERS = {
    (0x0020, 0x9162): "part",
    (0x0020, 0x9163): "parts",
    (0x0028, 0x0010): "tile_height",
    (0x0028, 0x0011): "tile_width",
    (0x0048, 0x0006): "width",
    (0x0048, 0x0007): "height",
}
_BIG_ENDIAN, _IMPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
_JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_MOST_ELEMENTS = 200_000  # positions of the frames of a sparse slide come before its pixels
_FIRST_FRAME = 1 << 16  # bytes: the markers of a JPEG lie at its front
_DEEPEST = 16


@dataclass(frozen=True)
class Header:
    r"""What the header of a DICOM file says.

    Attributes:
        series: SeriesInstanceUID; like all fields "" where the header does not say it.
        kind: ImageType, for example "ORIGINAL\PRIMARY\VOLUME\NONE".
        colours: PhotometricInterpretation.
        syntax: TransferSyntaxUID.
        stored: What its JPEG frames hold: "RGB" or "YCbCr".
        concatenation: ConcatenationUID of an image that is split over several files.
        organization: DimensionOrganizationType; "TILED_FULL" states every tile.
        frames: NumberOfFrames: the tiles of this file.
        part: InConcatenationNumber; like all numbers 0 where the header does not say it.
        parts: InConcatenationTotalNumber.
        tile_width: Of a tile, in pixels.
        tile_height: Of a tile, in pixels.
        width: Of the whole image, in pixels.
        height: Of the whole image, in pixels.
    """

    series: str = ""
    kind: str = ""
    colours: str = ""
    syntax: str = ""
    stored: str = ""
    concatenation: str = ""
    organization: str = ""
    frames: str = ""
    part: int = 0
    parts: int = 0
    tile_width: int = 0
    tile_height: int = 0
    width: int = 0
    height: int = 0

    @property
    def is_volume(self) -> bool:
        """Whether it holds tissue, not a label, an overview or a thumbnail."""
        return "VOLUME" in self.kind.split("\\")

    @property
    def tiles(self) -> int:
        """The tiles that the whole image needs; 0 where the header does not say it."""
        if self.organization != "TILED_FULL" or not (self.tile_width and self.tile_height):
            return 0
        return -(-self.width // self.tile_width) * -(-self.height // self.tile_height)

    @property
    def false_colours(self) -> bool:
        """Whether the frames hold other colours than the header says."""
        said = "RGB" if self.colours == "RGB" else "YCbCr" if self.colours[:3] == "YBR" else ""
        return bool(said and self.stored) and said != self.stored


def missing_instances(path: Path) -> str:
    """Which instances of a DICOM slide are not there, as far as the others say it.

    Args:
        path: One of its files, or the folder that holds them.

    Returns:
        A sentence; "" where all are there, or where nothing says that one is missing.
    """
    headers = {file: read_header(file) for file in files_of_slide(path)[1]}
    volumes = {file: header for file, header in headers.items() if header}
    if volumes and all(header.kind.endswith("\\RESAMPLED") for header in volumes.values()):
        largest = max(volumes.values(), key=lambda header: header.width)
        return (
            f"its full resolution is missing: all {len(volumes)} instances of series"
            f" {largest.series} are reduced ({largest.kind}), the largest {largest.width} x"
            f" {largest.height} px. Copy the instance whose ImageType ends with VOLUME\\NONE"
        )
    for file, header in volumes.items():
        parts = [h.part for h in volumes.values() if h.concatenation == header.concatenation]
        lost = sorted(set(range(1, header.parts + 1)) - set(parts)) if header.concatenation else []
        if lost:
            named = ", ".join(map(str, lost[:10]))
            return (
                f"instance {named} of {header.parts} is missing from the image of {header.width} x"
                f" {header.height} px (ConcatenationUID {header.concatenation}). Copy it again"
            )
        if not header.concatenation and (wanted := header.tiles) > int(header.frames or wanted):
            return (
                f"{file.name} holds {header.frames} of {wanted} tiles of the image of"
                f" {header.width} x {header.height} px. Convert the original again"
            )
    return ""


def series_of(path: str | Path) -> str | None:
    """The series that a DICOM file belongs to; the files of one slide share it.

    Args:
        path: Any file.

    Returns:
        The SeriesInstanceUID; None where the file is not DICOM, has none, or cannot be read.
    """
    header = read_header(Path(path))
    return header.series or None if header else None


def read_header(path: Path) -> Header | None:
    """The header of a DICOM file, up to the first damage; None for another kind of file."""
    try:
        state = path.stat()
        return _header(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return None


def files_of_slide(path: Path) -> tuple[Path, list[Path]]:
    """The files of a DICOM slide that hold tissue.

    Args:
        path: One of its files, or the folder that holds them.

    Returns:
        The file to open (`path` itself, or the largest file of a folder), and all files of its
        series in its folder that hold tissue.

    Raises:
        SlideError: A folder without .dcm files, or with several slides.
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".dcm" and f.is_file())
    if path.is_dir() and not files:
        problem = "a folder is a slide only where it holds .dcm files"
        raise SlideError(f"{path}: {problem}. Name the slide file itself")
    slides: dict[str, list[Path]] = {}
    for file in files:
        header = read_header(file)
        if header and header.is_volume:
            slides.setdefault(header.series, []).append(file)
    if not path.is_dir():
        return path, slides.get(series_of(path) or "", [])
    if len(slides) > 1:
        some = ", ".join(s[0].name for s in list(slides.values())[:3])
        problem = f"it holds {len(slides)} DICOM slides (series)"
        raise SlideError(f"{path}: {problem}. Name one file of each: {some}")
    volumes = next(iter(slides.values()), [])
    return max(volumes or files, key=lambda f: (f.stat().st_size, f.name)), volumes


@functools.lru_cache(maxsize=1 << 16)
def _header(path: Path, size: int, changed: int) -> Header | None:
    """The header; `size` and `changed` are of the file, so that a changed file is read again."""
    found: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return None
        with contextlib.suppress(struct.error, ValueError, OverflowError):
            _Reader(stream, found, numbers).read()  # what was read up to the damage counts
    if not found.get("frames", "0").isdecimal():
        del found["frames"]
    return Header(**found, **numbers)


class _Reader:
    """One pass over a file's elements, up to its pixels."""

    def __init__(self, stream: BinaryIO, found: dict[str, str], numbers: dict[str, int]) -> None:
        self.stream, self.found, self.numbers = stream, found, numbers
        self.order, self.explicit = "<", True
        self.left = _MOST_ELEMENTS

    def read(self) -> None:
        in_meta = True
        while True:
            place = self.stream.tell()
            group = self._numbers("H")[0]
            self.stream.seek(place)
            if in_meta and group != 2:  # what follows is written as the meta group says
                in_meta = False
                self.explicit = self.found.get("syntax") != _IMPLICIT
                self.order = ">" if self.found.get("syntax") == _BIG_ENDIAN else "<"
            tag, length, is_sequence = self._element()
            if tag == _PIXELS:
                if length == _UNDEFINED and self.found.get("syntax") in _JPEG:
                    self.found["stored"] = jpeg_colours(self._first_frame()) or ""
                return
            if tag in _WANTED and length < 1 << 16:
                text = self.stream.read(length).decode("latin-1").strip(" \0")
                self.found[_WANTED[tag]] = text
            elif tag in _NUMBERS and length in (2, 4):
                self.numbers[_NUMBERS[tag]] = self._numbers("H" if length == 2 else "I")[0]
            else:
                self._skip(length, is_sequence=is_sequence, depth=0)

    def _element(self) -> tuple[tuple[int, int], int, bool]:
        """Tag, length in bytes, and whether it is a sequence, which may have no stated length."""
        self.left -= 1
        if not self.left:
            raise ValueError("too many elements")
        group, element = self._numbers("HH")
        if group == 0xFFFE or not self.explicit:
            return (group, element), self._numbers("I")[0], group != 0xFFFE
        kind = self.stream.read(2)
        if kind in _LONG:
            self.stream.seek(2, 1)
            return (group, element), self._numbers("I")[0], kind in (b"SQ", b"UN")
        return (group, element), self._numbers("H")[0], False

    def _skip(self, length: int, *, is_sequence: bool, depth: int) -> None:
        if length != _UNDEFINED:
            self.stream.seek(length, 1)
            return
        if not is_sequence or depth > _DEEPEST:
            raise ValueError("a length that is not defined")
        while True:
            tag, length, _ = self._element()
            if tag == _SEQUENCE_END:
                return
            if tag != _ITEM:
                raise ValueError("no item of a sequence")
            if length != _UNDEFINED:
                self.stream.seek(length, 1)
                continue
            while True:
                tag, length, inner = self._element()
                if tag == _ITEM_END:
                    break
                self._skip(length, is_sequence=inner, depth=depth + 1)

    def _first_frame(self) -> bytes:
        """The first bytes of the first frame: the item after the table of offsets."""
        _, length, _ = self._element()
        self.stream.seek(length, 1)
        _, length, _ = self._element()
        return self.stream.read(min(length, _FIRST_FRAME))

    def _numbers(self, code: str) -> tuple[int, ...]:
        fields = struct.Struct(self.order + code)
        return fields.unpack(self.stream.read(fields.size))
