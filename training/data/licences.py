"""The licences that a table of tiles may name, and the class of each.

P: weights that are trained on the tile may be given to anyone. N: they may not, as its source
forbids commercial use, asks that what is made from it has the same licence, or is silent.
"""

from __future__ import annotations

from training.data.values import name_of, nearest

# SPDX names, each group from the least to the most restrictive.
PERMISSIVE = (
    "CC0-1.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "Apache-2.0",
)
COPYLEFT = ("CC-BY-SA-4.0", "GPL-3.0")
NON_COMMERCIAL = ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0")
CLASSES = ("P", "N")
WRITTEN = {name.casefold(): name for name in (*CLASSES, *PERMISSIVE, *COPYLEFT, *NON_COMMERCIAL)}


def read(text: str) -> str:
    """A value of a `licence` column as it is usually written; "" for none.

    Raises:
        ValueError: It is neither a class nor a licence that is known.
    """
    name = name_of(text).strip()
    if not name:
        return ""
    found = WRITTEN.get(name.casefold())
    if found is None:
        near = nearest(name.casefold(), WRITTEN)
        raise ValueError(
            f"known are {', '.join(WRITTEN.values())}, or nothing{near}. A licence that is not"
            " among them: N"
        )
    return found


def class_of(licence: str) -> str:
    """P or N for a value that `read` gave; "" for none."""
    if licence in CLASSES or not licence:
        return licence
    return "P" if licence in PERMISSIVE else "N"
