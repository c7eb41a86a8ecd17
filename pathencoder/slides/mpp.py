"""Micrometres per pixel of a slide, from what OpenSlide reads of it."""

from __future__ import annotations

from collections.abc import Mapping

from pathencoder.mpp import Mpp, check_mpp, decide, scale_notes
from pathencoder.mpp_claims import of_properties

__all__ = ["Mpp", "check_mpp", "find_mpp", "scale_notes"]


def find_mpp(properties: Mapping[str, str], *, name: str, given: float | None = None) -> Mpp:
    """The scale of a slide from its OpenSlide properties.

    Args:
        properties: OpenSlide's.
        name: What errors call the slide.
        given: The user's scale in micrometres per pixel; overrules the file.

    Returns:
        The scale, its source, and what was left aside.

    Raises:
        MissingMpp: Nothing is said, or what is said cannot be believed.
        ConfigError: `given` is no number from 0.01 to 100.
    """
    return decide(of_properties(properties), name=name, given=given)
