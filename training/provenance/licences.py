"""The licence of an encoder that was made from other weights and from images."""

from __future__ import annotations

from collections.abc import Iterable

from pathencoder.spec import UNKNOWN_LICENCE
from training.data.licences import COPYLEFT, NON_COMMERCIAL, PERMISSIVE

OWN = "Apache-2.0"  # of weights that nothing restricts further
_ORDER = (*PERMISSIVE, *COPYLEFT, *NON_COMMERCIAL)  # from the least to the most restrictive
_WRITTEN = {name.casefold(): name for name in _ORDER}

# What weights may be given out under that were trained on tiles of which a table states only the
# class. P: to anyone. N: the source forbids commercial use, or is silent, and its maintainer chose
# to use it for research.
OF_TILES = {"P": OWN, "N": "CC-BY-NC-4.0"}


def strictest(licences: Iterable[str]) -> str:
    """The licence of what is made from parts of these licences.

    Args:
        licences: Those of the parts: SPDX names, or the names of terms of their own.

    Returns:
        `unknown` where one is; else the most restrictive one. Terms that are not in the table
        cannot be compared: they all apply, together with the most restrictive of the others if it
        restricts the use. Permissive parts give Apache-2.0.
    """
    written = sorted({_WRITTEN.get(name.strip().casefold(), name.strip()) for name in licences})
    if any(not name or name.casefold() == UNKNOWN_LICENCE for name in written):
        return UNKNOWN_LICENCE
    known = max((name for name in written if name in _ORDER), key=_ORDER.index, default=OWN)
    known = OWN if known in PERMISSIVE else known
    own_terms = [name for name in written if name not in _ORDER]
    return " and ".join([*([known] if known != OWN or not own_terms else []), *own_terms])


def is_commercial(licence: str) -> bool:
    """Whether a licence is known to allow commercial use without conditions on other software."""
    return _WRITTEN.get(licence.strip().casefold()) in PERMISSIVE


def of_tiles(classes: Iterable[str], stated: str | None) -> str:
    """The licence of weights that were trained on tiles of these classes.

    Args:
        classes: P, N, a licence that the table names, or unknown.
        stated: What holds for tiles of unknown licence; None: they are unknown.
    """
    named = {name: name for name in _ORDER}
    return strictest(
        [OF_TILES.get(c) or named.get(c) or stated or UNKNOWN_LICENCE for c in classes]
    )
