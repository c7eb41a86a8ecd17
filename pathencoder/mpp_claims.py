"""What a file states about its scale: micrometres per pixel by source, objective, size.

Every source is read; `mpp.py` decides. Sources: OpenSlide's properties (which hold the fields of
Aperio, MIRAX, Ventana, Philips and DICOM), the resolution tags of TIFF 6.0, the descriptions of
OME-XML, ImageJ and Aperio.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["microscope", "tags", "screen"]

# Vendors whose TIFF tags mean something else: Trestle writes micrometres into XResolution
# (openslide-vendor-trestle.c), the first page of Ventana's BIF is the label.
_OTHER_TAGS = frozenset({"trestle", "ventana"})
_TIFF_UNITS = {"centimeter": 1e4, "inch": 25_400.0}
_UNITS = {"pm": 1e-6, "nm": 1e-3, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0}
_UNITS |= {"micrometre": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0, "in": 25_400.0}
_SPACING = "dicom.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing"
_MIRAX = "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_"
# Source, property of x, property of y, micrometres of one unit. OpenSlide copies most to its own.
_PAIRS = (
    ("openslide.mpp-x", "openslide.mpp-x", "openslide.mpp-y", 1.0),
    ("aperio.MPP", "aperio.MPP", "aperio.MPP", 1.0),
    ("mirax.MICROMETER_PER_PIXEL", _MIRAX + "X", _MIRAX + "Y", 1.0),
    ("ventana.ScanRes", "ventana.ScanRes", "ventana.ScanRes", 1.0),
    ("dicom.PixelSpacing", _SPACING + "[1]", _SPACING + "[0]", 1e3),
)
_POWERS = ("openslide.objective-power", "aperio.AppMag", "hamamatsu.SourceLens")
_NUMBER = r"([0-9]{1,20}(?:[.,][0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?)"
_SIZE = r"(\d{1,9})x(\d{1,9})"
_APERIO = "MPP in the description"
_LONGEST_ELEMENT = 4000  # characters; what follows in a damaged one is not searched
# Micrometres per pixel. Beyond is the resolution of a screen (72 dpi is 353), a placeholder.
MICROSCOPES = (0.02, 20.0)


@dataclass(frozen=True)
class Claim:
    """One source's scale.

    Attributes:
        source: The property or tag that states it.
        x: Micrometres per pixel along a row, above 0.
        y: The same along a column.
        kind: "microscope" (a field that only microscopy software writes), "tags" (the resolution of
            a TIFF, which any program writes) or "screen" (that of a PNG or JPEG).
    """

    source: str
    x: float
    y: float
    kind: Kind = "microscope"

    @property
    def serious(self) -> bool:
        """Whether any microscope could have this scale."""
        low, high = MICROSCOPES
        return low <= min(self.x, self.y) and max(self.x, self.y) <= high

    @property
    def scale(self) -> str:
        """The number, or both, as text."""
        same = math.isclose(self.x, self.y, rel_tol=1e-3)
        return f"{self.x:.4g}" + ("" if same else f" x {self.y:.4g}") + " um/px"

    def __str__(self) -> str:
        return f"{self.source} says {self.scale}"


@dataclass(frozen=True)
class Evidence:
    """All that a file states about its scale.

    Attributes:
        claims: In the order of trust, the most trusted first.
        power: Magnification of the objective; None where unknown.
        size: Width and height in pixels; None where unknown.
        described: Width and height that the description states; None where it states none.
        vendor: Of the slide, under OpenSlide's name; "" where unknown.
    """

    claims: tuple[Claim, ...]
    power: float | None = None
    size: tuple[int, int] | None = None
    described: tuple[int, int] | None = None
    vendor: str = ""


def of_properties(properties: Mapping[str, str]) -> Evidence:
    """The evidence in OpenSlide's properties of a slide."""
    vendor = properties.get("openslide.vendor", "")
    generic = vendor == "generic-tiff"  # its mpp is that of the tags
    claims: list[Claim] = []
    for source, x, y, unit in _PAIRS:
        kind: Kind = "tags" if generic and x.startswith("openslide.") else "microscope"
        claims += _claim(source, properties.get(x), properties.get(y), unit, kind)
    claims += _philips(properties) + _imaged_volume(properties)
    resolution = properties.get("tiff.XResolution"), properties.get("tiff.YResolution")
    unit_name = properties.get("tiff.ResolutionUnit", "inch").lower()
    text = properties.get("tiff.ImageDescription", "")
    if vendor not in _OTHER_TAGS:
        claims += of_tags(*resolution, unit_name)
        described = of_description(text, *resolution)
        claims += [c for c in described if c.source != _APERIO or "aperio.MPP" not in properties]
    power = next((p for p in map(number, map(properties.get, _POWERS)) if p), power_in(text))
    size = _whole(properties, "openslide.level[0].width", "openslide.level[0].height")
    return Evidence(tuple(claims), power, size, described_size(text), vendor)


def of_tags(x: str | float | None, y: str | float | None, unit: str) -> list[Claim]:
    """TIFF's XResolution and YResolution, in pixels per `unit` ("inch", "centimeter")."""
    across, down, micrometres = number(x), number(y), _TIFF_UNITS.get(unit)
    if not (across and down and micrometres):
        return []
    return [Claim("tiff.XResolution", micrometres / across, micrometres / down, "tags")]


def of_description(text: str, x: str | float | None, y: str | float | None) -> list[Claim]:
    """The claims in a TIFF's ImageDescription.

    Args:
        text: The description.
        x: XResolution; its unit is the one that ImageJ's description states.
        y: YResolution, likewise.
    """
    return _ome(text) + _imagej(text, number(x), number(y)) + _aperio(text)


def power_in(text: str) -> float | None:
    """The objective's magnification in an OME-XML or Aperio description."""
    found = re.search(r"\bNominalMagnification=[\"']" + _NUMBER, text)
    found = found or re.search(r"\|\s*AppMag\s*=\s*" + _NUMBER, text)
    return number(found[1]) if found else None


def described_size(text: str) -> tuple[int, int] | None:
    """Width and height that an Aperio or OME-XML description states."""
    pixels = _pixels(text)
    if pixels:
        return _whole(pixels, "SizeX", "SizeY")
    if not text.startswith("Aperio"):
        return None
    line = text[:1000].partition("\n")[2].partition(";")[0].partition("|")[0]
    found = re.search("->\\s*" + _SIZE, line) or re.search(r"[\[ ,]" + _SIZE + r"\]", line)
    found = found or re.match(r"\s*" + _SIZE, line)
    return (int(found[1]), int(found[2])) if found else None


def number(value: str | float | None) -> float | None:
    """A number above 0, with a decimal point or comma; None for anything else."""
    try:
        found = float(value.replace(",", ".")) if isinstance(value, str) else float(value or 0)
    except ValueError:
        return None
    return found if 0 < found < math.inf else None


def _claim(
    source: str,
    x: str | None,
    y: str | None,
    unit: float,
    kind: Kind = "microscope",
) -> list[Claim]:
    across, down = number(x), number(y)
    return [Claim(source, across * unit, down * unit, kind)] if across and down else []


def _philips(properties: Mapping[str, str]) -> list[Claim]:
    """Two quoted numbers: rows, then columns, in millimetres."""
    source = "philips.DICOM_PIXEL_SPACING"
    y, x, *_ = [*re.findall(_NUMBER, properties.get(source, "")), "", ""]
    return _claim(source, x, y, 1e3)


def _imaged_volume(properties: Mapping[str, str]) -> list[Claim]:
    """DICOM's imaged width in mm over its columns, unless the pixels would be far from square.

    Some converters write a default of 15 mm for both sides.
    """
    size = _whole(properties, "dicom.TotalPixelMatrixColumns", "dicom.TotalPixelMatrixRows")
    width = number(properties.get("dicom.ImagedVolumeWidth"))
    height = number(properties.get("dicom.ImagedVolumeHeight"))
    if not (size and width and height):
        return []
    x, y = 1e3 * width / size[0], 1e3 * height / size[1]
    return [Claim("dicom.ImagedVolumeWidth", x, y)] if max(x, y) < 1.05 * min(x, y) else []


def _ome(text: str) -> list[Claim]:
    """OME-XML's PhysicalSize of the first image; the default unit is the micrometre."""
    pixels = _pixels(text)
    across = number(pixels.get("PhysicalSizeX"))
    if not across:
        return []
    down = number(pixels.get("PhysicalSizeY")) or across
    units = [_UNITS.get(_unit(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0) for axis in "XY"]
    x, y = across * units[0], down * units[1]
    return [Claim("OME-XML PhysicalSizeX", x, y)] if x and y else []


def _pixels(text: str) -> dict[str, str]:
    """The attributes of the first Pixels element, without an XML parser (entity expansion)."""
    found = re.search(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
    if not found:
        return {}
    fields = re.findall(r"(\w+)\s*=\s*([\"'])(.*?)\2", found[1][:_LONGEST_ELEMENT])
    return {name: html.unescape(value) for name, _, value in fields}


def _imagej(text: str, x: float | None, y: float | None) -> list[Claim]:
    unit = re.search(r"^unit=(.+)$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    micrometres = _UNITS.get(_unit(unit[1])) if unit else None
    if not (micrometres and x and y):
        return []
    return [Claim("ImageJ unit", micrometres / x, micrometres / y)]


def _aperio(text: str) -> list[Claim]:
    found = re.search(r"\|\s*MPP\s*=\s*" + _NUMBER, text)
    return _claim(_APERIO, found[1], found[1], 1.0) if found else []


def _unit(name: str) -> str:
    """A unit's name with a plain u for both micro signs, ImageJ's escape, and damaged forms."""
    name = name.strip().replace("\\u00B5", "u").replace("\\u00b5", "u")
    return re.sub(r"^[^\x00-\x7f]+(?=m$)", "u", name).lower()


def _whole(fields: Mapping[str, str], width: str, height: str) -> tuple[int, int] | None:
    x, y = (number(fields.get(side)) for side in (width, height))
    return (int(x), int(y)) if x and y and min(x, y) >= 1 else None
