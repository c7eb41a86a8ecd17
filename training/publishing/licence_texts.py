"""The texts of LICENSE files of weights."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parents[2]

# of bundled weights; those of a published encoder may be any, see `text_of`
LICENCES = {
    "Apache-2.0": (_ROOT / "LICENSE").read_text(),
    "CC-BY-NC-4.0": (
        """Copyright the pathencoder authors.

The weights in this folder are licensed under the Creative Commons
Attribution-NonCommercial 4.0 International Public License (CC BY-NC 4.0).
You may share and adapt them for non-commercial purposes with attribution.
They come without any warranty. The licence in full:
https://creativecommons.org/licenses/by-nc/4.0/legalcode

They were trained on images some of whose sources forbid commercial use, or state no licence.
"""
    ),
}


def text_of(licence: str) -> str:
    """The text of a licence, or its name and where its text is."""
    return LICENCES.get(licence) or (
        f"The weights in this folder are licensed under {licence}, without any warranty.\n"
        f"Its text: https://spdx.org/licenses/{licence}.html\n"
    )
