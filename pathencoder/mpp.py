"""Micrometres per pixel of a slide or image: decided from what its file states, never guessed.

Every claim is read (mpp_claims.py). A resolution that no microscope has (of a screen or printer) is
ignored and noted. The rest must agree to 5 %, fit the objective, and lie in a range:

| kind | um/px of full resolution | why |
|---|---|---|
| microscope | 0.1 to 2.2 | 60x .12-.17, 40x .22-.28, 20x .4-.55, 10x 1, 5x 2 |
| tags | 0.1 to 1.2 | pixels per mm, cm and inch get mixed up: above lie .12-.55 x 10, .5 x 2.54 |
| screen | 0.1 to 1.2 | such a PNG or JPEG was written by a microscope's software |
| with a fitting objective | 0.04 to 9 | 100x oil to 1.25x: the objective confirms the scale |

A scale outside its range is refused: a file that states 4.99 is far more often a 20x scan with the
wrong unit than an overview, and a user with an overview can give --mpp 4.99. The objective alone
never gives the scale: 20x is .23 (MIRAX, with an adapter of 1.6x) to .55.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from pathencoder.errors import ConfigError, MissingMpp
from pathencoder.mpp_claims import Claim, Evidence, Kind

GIVEN = (0.01, 100.0)  # what a user may give
PLAUSIBLE: dict[Kind, tuple[float, float]] = {
    "microscope": (0.1, 2.2),
    "tags": (0.1, 1.2),
    "screen": (0.1, 1.2),
}
WITH_OBJECTIVE = (0.04, 9.0)
POWER_TIMES_MPP = (4.0, 16.0)  # 10 by the rule; 4.4 for 20x at .22, 14 for 20x at .7
LONGEST_MM = 210.0  # of glass: 8 inches, for whole organs; the common slide has 76
USUAL_POWER_TIMES_MPP = (6.0, 14.0)
_ADAPTERS = frozenset({"mirax", "zeiss"})  # vendors whose 20x scans have .22 to .25
_SAME = 1.05  # claims that differ by at most this factor agree
_SLIPS = {
    10.0: "pixels per mm and per cm were mixed up",
    2.54: "pixels per inch and per cm were mixed up",
    25.4: "pixels per mm and per inch were mixed up",
    1000.0: "millimetres, micrometres and nanometres were mixed up",
}
_TABLE = "--slides-csv FILE with columns slide,mpp for many"
_REMEDY = f"Give the true scale: --mpp 0.25 (mpp=0.25 in Python), or {_TABLE}"
_COMMON = ((0.21, 0.285), (0.44, 0.56))  # the scales of nearly all scans, 40x and 20x


@dataclass(frozen=True)
class Mpp:
    """Micrometres per pixel of full resolution, and where the number comes from.

    Attributes:
        value: Micrometres per pixel.
        source: The property or tag that states it; "given" for the user's.
        claims: All that the file states, as sentences ("aperio.MPP says 0.499 um/px").
        notes: What was ignored or overruled, as sentences for the summary.
    """

    value: float
    source: str
    claims: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(evidence: Evidence, *, name: str, given: float | None = None) -> Mpp:
    """Decide the scale of a file from its claims.

    Args:
        evidence: All that the file states.
        name: What errors call the file.
        given: The user's scale in micrometres per pixel; overrules the file.

    Returns:
        The scale, its source, and what was ignored.

    Raises:
        MissingMpp: The file states no scale, or an implausible one.
        ConfigError: `given` is not a number from 0.01 to 100.
    """
    claims = tuple(map(str, evidence.claims))
    serious = [c for c in evidence.claims if c.serious]
    if given is not None:
        value = check_mpp(given)
        return Mpp(value, "given", claims, tuple(_overruled(value, serious)))
    if problem := _problem(serious, evidence):
        raise MissingMpp(f"{name}: {problem}")
    best, absurd = serious[0], [c for c in evidence.claims if not c.serious]
    notes = [f"{claim}: not the scale of a microscope, ignored" for claim in absurd]
    return Mpp((best.x + best.y) / 2, best.source, claims, (*notes, *_unusual(best, evidence)))


def check_mpp(mpp: object, name: str = "mpp") -> float:
    """Check a scale that a user gave.

    Args:
        mpp: A number, or an array or tensor without axes.
        name: Of the setting, for the error.

    Returns:
        Micrometres per pixel.

    Raises:
        ConfigError: It is not a number from 0.01 to 100.
    """
    number = mpp.item() if hasattr(mpp, "item") and getattr(mpp, "ndim", None) == 0 else mpp
    low, high = GIVEN
    if isinstance(number, bool) or not isinstance(number, Real) or not low <= float(number) <= high:
        raise ConfigError(
            f"{name}={mpp!r} is not a scale: give one number of micrometres per pixel, from"
            f" {low:g} to {high:g} (a 40x scan has about 0.25, a 20x one 0.5)"
        )
    return float(number)


def scale_notes(slide_mpp: float, target_mpp: float, encoder_mpp: float | None = None) -> list[str]:
    """What a user should know of the scale at which a slide is read.

    Args:
        slide_mpp: Micrometres per pixel of the slide's full resolution.
        target_mpp: Micrometres per pixel at which its tiles are read.
        encoder_mpp: Micrometres per pixel that the encoder was trained at; None: unknown.

    Returns:
        Sentences; an empty list where the slide is fine enough and read as the encoder was trained.
    """
    notes = []
    factor = slide_mpp / target_mpp
    if factor > 1.1:
        notes.append(
            f"the slide's own pixels ({slide_mpp:.4g} um) are coarser than the"
            f" {target_mpp:.4g} um/px it is read at: tiles are enlarged {factor:.3g} times, which"
            " adds no detail"
        )
    if encoder_mpp is not None and not 1 / 1.1 < target_mpp / encoder_mpp < 1.1:
        trained = f"the encoder was trained at {encoder_mpp:.4g}"
        notes.append(f"read at {target_mpp:.4g} um/px, and {trained}")
    return notes


def _problem(serious: Sequence[Claim], evidence: Evidence) -> str:
    """Why a file's scale is not known, with what to do; empty where it is known."""
    if serious:
        problem = _disagreement(serious, evidence) or _implausible(serious, evidence)
        return f"{problem}. {_REMEDY}" if problem else ""
    problem, hint = "it does not say its micrometres per pixel", ""
    if evidence.claims:
        problem = f"what it says is not the scale of a microscope ({_list(evidence.claims)})"
    if evidence.power:
        usual = f"{10 / evidence.power:.3g}"
        hint = f". Its objective is {evidence.power:g}x, which usually means about {usual}"
    return f"{problem}. {_REMEDY}{hint}"


def _unusual(claim: Claim, evidence: Evidence) -> list[str]:
    """A note where the objective is unusual for the scale, as it often is with MIRAX and Zeiss."""
    power = evidence.power
    low, high = USUAL_POWER_TIMES_MPP
    if not power or evidence.vendor in _ADAPTERS or low <= power * claim.x <= high:
        return []
    usual = f"its objective is {power:g}x, which usually means about {10 / power:.3g}"
    return [f"{claim}; {usual}: give --mpp if that is right"]


def _overruled(given: float, claims: Sequence[Claim]) -> list[str]:
    other = [c for c in claims if not _agree([c.x, c.y, given])]
    return [f"{_list(other)}; the {given:g} that was given is used"] if other else []


def _agree(values: Sequence[float]) -> bool:
    return max(values) <= _SAME * min(values)


def _disagreement(claims: Sequence[Claim], evidence: Evidence) -> str:
    """What contradicts what; empty where all agree."""
    if not _agree([side for c in claims for side in (c.x, c.y)]):
        if all(_agree([c.x, c.y]) for c in claims):
            return f"its claims contradict each other: {_list(claims)}{_reduced(claims, evidence)}"
        return f"pixels that are not square, or claims that contradict each other: {_list(claims)}"
    if reduced := _reduced(claims, evidence):
        return f"{claims[0]}{reduced}"
    mpp, power = claims[0].x, evidence.power
    if power and 1 <= power <= 150 and not _suits(power, mpp):
        return f"{claims[0]}, but its objective is {power:g}x, which usually means {10 / power:.3g}"
    return ""


def _reduced(claims: Sequence[Claim], evidence: Evidence) -> str:
    """A note on a copy whose description states a size that differs by one factor in x and y."""
    if not (evidence.size and evidence.described):
        return ""
    x, y = (there / here for there, here in zip(evidence.described, evidence.size, strict=True))
    if not math.isclose(x, y, rel_tol=0.01) or 1 / _SAME < x < _SAME:
        return ""
    there, here = (f"{w} x {h}" for w, h in (evidence.described, evidence.size))
    described = next((c for c in claims if c.kind == "microscope"), claims[0])
    return (
        f". Its description is that of an image of {there} px, this one has {here}: a copy resized"
        f" by {1 / x:.3g} may have kept it, and its scale would be {described.x * x:.4g}"
    )


def _implausible(claims: Sequence[Claim], evidence: Evidence) -> str:
    """Why claims that agree are implausible; empty where they are plausible."""
    mpp, power = claims[0].x, evidence.power
    if evidence.size and mpp * max(evidence.size) > LONGEST_MM * 1000:
        length = mpp * max(evidence.size) / 1000
        return f"{claims[0]}, which makes it {length:.0f} mm long, more than any slide{_slip(mpp)}"
    ranges = [PLAUSIBLE[c.kind] for c in claims]
    if power and _suits(power, mpp):
        ranges.append(WITH_OBJECTIVE)
    if any(low <= mpp <= high for low, high in ranges):
        return ""
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    finer = "finer" if mpp < low else "coarser"
    return f"{_list(claims)}: {finer} than slides are scanned ({low:g} to {high:g}){_slip(mpp)}"


def _suits(power: float, mpp: float) -> bool:
    return POWER_TIMES_MPP[0] <= power * mpp <= POWER_TIMES_MPP[1]


def _slip(mpp: float) -> str:
    """The confusion of units that turns a common scale into this one; empty without one."""
    for factor, how in _SLIPS.items():
        for true in (mpp * factor, mpp / factor):
            if any(low <= true <= high for low, high in _COMMON):
                return f". If {how}, it is {true:.3g}"
    return ""


def _list(claims: Sequence[Claim]) -> str:
    """Each scale once, with all its sources."""
    sources: dict[str, list[str]] = {}
    for claim in claims:
        sources.setdefault(claim.scale, []).append(claim.source)
    verb = {name: "say" if len(names) > 1 else "says" for name, names in sources.items()}
    return "; ".join(f"{' and '.join(n)} {verb[scale]} {scale}" for scale, n in sources.items())
