"""Micrometres per pixel of a slide, from the properties that OpenSlide reads."""

from __future__ import annotations

from collections.abc import Mapping

from pathencoder.mpp import Mpp, check_mpp, decide, scale_notes
from pathencoder.mpp_claims import of_properties

__all__ = ["Mpp", "check_mpp", "find_mpp", "scale_notes"]


def find_mpp(properties: Mapping[str, str], *, name: str, given: float | None = None) -> Mpp:
    """The scale of a slide from its OpenSlide properties.

    Args:
        properties: The properties that OpenSlide reads.
        name: The slide's name in error messages.
        given: The user's scale in micrometres per pixel; overrides the file.

    Returns:
        The scale, its source, and notes on claims that were not used.

    Raises:
        MissingMpp: The slide states no scale, or one that is not plausible.
        ConfigError: `given` is no number from 0.01 to 100.
    """
    return decide(of_properties(properties), name=name, given=given)
