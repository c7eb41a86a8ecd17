"""The public data sets by name. A new set is one file and one row here."""

from __future__ import annotations

import difflib
import importlib
from typing import cast

from pathencoder.errors import ConfigError
from pathencoder.heads.datasets.public_set import PublicSet

# name -> module; each holds its `SET`
_SETS = {
    "pcam": "pathencoder.heads.datasets.pcam",
    "nct-crc": "pathencoder.heads.datasets.nct_crc",
    "bach": "pathencoder.heads.datasets.bach",
    "breakhis": "pathencoder.heads.datasets.breakhis",
    "mhist": "pathencoder.heads.datasets.mhist",
    "glas": "pathencoder.heads.datasets.glas",
    "monuseg": "pathencoder.heads.datasets.monuseg",
    "pannuke": "pathencoder.heads.datasets.pannuke",
    "lizard": "pathencoder.heads.datasets.lizard",
    "consep": "pathencoder.heads.datasets.consep",
    "bcdata": "pathencoder.heads.datasets.bcdata",
    "midog++": "pathencoder.heads.datasets.midogpp",
}


def names() -> list[str]:
    """The names of all sets."""
    return list(_SETS)


def public_set(name: str) -> PublicSet:
    """What is known of a set.

    Args:
        name: Of the set; case does not matter.

    Returns:
        Its description.

    Raises:
        ConfigError: There is no set of that name.
    """
    folded = name.strip().casefold() if isinstance(name, str) else ""
    if folded not in _SETS:
        near = difflib.get_close_matches(folded, list(_SETS), n=1)
        meant = f". Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"dataset={name!r}: one of {', '.join(_SETS)}{meant}")
    return cast(PublicSet, importlib.import_module(_SETS[folded]).SET)
