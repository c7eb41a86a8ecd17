"""Micrometres per pixel of a slide: found, checked, and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pathencoder.errors import MissingMpp

# Scanners lie between 0.1 and 1; overviews reach 16. Beyond that it is a printer's resolution (72 dpi is 353) or a placeholder.
LOWEST, HIGHEST = 0.02, 20.0
_SAME = 1.05  # x and y may differ by this factor and still be one number
_TIFF_UNITS = {"centimeter": 10_000.0, "inch": 25_400.0}
_PAIRS = (("openslide.mpp-x", "openslide.mpp-y"), ("aperio.MPP", "aperio.MPP"))


@dataclass(frozen=True)
class Mpp:
    """Micrometres per level-0 pixel, and where the number comes from."""

    value: float
    source: str


def find_mpp(properties: Mapping[str, str], *, name: str, given: float | None = None) -> Mpp:
    """The scale of a slide from its OpenSlide properties; `given` (the user's) comes first.

    Raises MissingMpp where nothing is said, where what is said is absurd, or where x and y differ.
    """
    if given is not None:
        return Mpp(given, "given")
    absurd: list[str] = []
    for source, x, y in _claims(properties):
        if not (LOWEST <= x <= HIGHEST and LOWEST <= y <= HIGHEST):
            absurd.append(f"{source} says {x:.6g}" + (f" x {y:.6g}" if x != y else ""))
        elif max(x, y) > _SAME * min(x, y):
            absurd.append(f"{source} says {x:.6g} x {y:.6g}: pixels that are not square")
        else:
            return Mpp((x + y) / 2, source)
    said = f"what it says is no microscope's ({'; '.join(absurd)})" if absurd else "it does not say its micrometres per pixel"
    raise MissingMpp(
        f"{name}: {said}. Give it: --mpp 0.25 (mpp=0.25 in Python), or --mpp-csv FILE with columns slide,mpp for many{_hint(properties)}"
    )


def _claims(properties: Mapping[str, str]) -> list[tuple[str, float, float]]:
    found = [(source, _number(properties.get(source)), _number(properties.get(other))) for source, other in _PAIRS]
    unit = _TIFF_UNITS.get(properties.get("tiff.ResolutionUnit", "inch").lower())
    x, y = _number(properties.get("tiff.XResolution")), _number(properties.get("tiff.YResolution"))
    if unit and x and y:
        found.append(("tiff.XResolution", unit / x, unit / y))
    return [(source, x, y) for source, x, y in found if x and y]


def _number(text: str | None) -> float | None:
    try:
        value = float(text.replace(",", ".")) if text else None
    except ValueError:
        return None
    return value if value and value > 0 else None


def _hint(properties: Mapping[str, str]) -> str:
    power = _number(properties.get("openslide.objective-power"))
    return f". Its objective is {power:g}x, which usually means about {10 / power:g}" if power else ""
