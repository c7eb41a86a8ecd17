"""The scale and the stain of images in a labelled set: from its table, the user or the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pathencoder.errors import ConfigError, MissingMpp
from pathencoder.formats.image_scale import evidence_of, image_scale
from pathencoder.heads.data.empty import is_no_value
from pathencoder.heads.data.listing import Found
from pathencoder.mpp import check_mpp, decide
from pathencoder.tables import number
from pathencoder.walk import printable

STAINS = ("he", "ihc")


@dataclass(frozen=True)
class Scales:
    """The scales of images.

    Attributes:
        mpp: Micrometres per pixel of each; None where it is not known.
        problems: What is wrong, as sentences.
        notes: What was assumed, as sentences.
    """

    mpp: list[float | None]
    problems: list[str]
    notes: list[str]


def scales_of(rows: Sequence[Found], given: float | None) -> Scales:
    """The scale of each image: its row of the table, else `given`, else what its file states.

    Args:
        rows: The images.
        given: Micrometres per pixel of all images whose row states none.

    Returns:
        The scales.
    """
    found: list[float | None] = []
    problems: list[str] = []
    missing, overruled, own = [], [], 0
    for row in rows:
        value: float | None = None
        try:
            value = stated_scale(row.mpp)
            own += value is not None
            if value is None and given is not None:
                value = given
                if os.path.isfile(row.image):
                    name = printable(row.image)
                    overruled += list(decide(evidence_of(row.image), name=name, given=given).notes)
            elif value is None:
                scale = image_scale(row.image)
                value = None if scale is None else scale.value
                missing += [row] if value is None else []
        except (ConfigError, MissingMpp) as error:
            problems.append(f"{row.where}: {error}")
        found.append(value)
    if missing:
        problems.append(
            f"the scale of {len(missing)} images is not known, {missing[0].where} for example: give"
            " their micrometres per pixel: mpp=0.5 (--mpp 0.5), or a column mpp in a table"
        )
    notes = [f"{len(overruled)} images: {overruled[0]}"] if overruled else []
    if given is not None and own:
        notes.append(f"{own} images have the scale of their row in the table, not {given:g}")
    return Scales(found, problems, notes)


def stated_scale(text: str) -> float | None:
    """The number at the beginning of a scale as people write it.

    Args:
        text: For example "0.25", "~0.55", "0,25" or "0.25 (assumed 40x)", in um/px.

    Returns:
        The number; None for a value that stands for none.

    Raises:
        ConfigError: It begins with no number, or with one that is no scale.
    """
    words = text.replace("~", "").split()
    if not words or is_no_value(words[0]):
        return None
    try:
        value = number(words[0], ";")
    except ValueError:
        raise ConfigError(
            f"mpp is {text!r}: a number of micrometres per pixel is needed, 0.5 for example"
        ) from None
    return check_mpp(value)


def stains_of(rows: Sequence[Found], given: str) -> tuple[list[str], list[str]]:
    """The stain of each image, "he" or "ihc", and what was assumed.

    Args:
        rows: The images.
        given: Of images whose row states none.

    Raises:
        ConfigError: `given` is neither.
    """
    if given not in STAINS:
        raise ConfigError(f"stain={given!r}: 'he' or 'ihc'")
    found = [_stain(row.stain) or given for row in rows]
    other = [row.stain for row in rows if row.stain and not _stain(row.stain)]
    if not other:
        return found, []
    return found, [f"{len(other)} images of the stain {other[0]!r} are read as {given!r}"]


def _stain(text: str) -> str | None:
    folded = text.casefold()
    if any(word in folded for word in ("ihc", "dab", "immuno")):
        return "ihc"
    return "he" if folded in ("he", "h&e", "h & e") or folded.startswith("h&e") else None
