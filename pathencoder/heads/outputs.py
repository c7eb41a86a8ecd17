"""The part of config.json that turns the scores of a classifier into labels, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outputs:
    """What scores become.

    Attributes:
        classes: The names of the classes, in the order of the scores.
        temperature: Scores are divided by it.
        threshold: The probability below which the head abstains; None: it never does.
    """

    classes: tuple[str, ...]
    temperature: float
    threshold: float | None


def read_outputs(config: Mapping[str, Any], scores: int) -> Outputs:
    """The outputs that a head's config.json states.

    Args:
        config: Its content.
        scores: How many scores its model gives.

    Raises:
        KeyError: A value is missing.
        ValueError: A value does not fit, so that labels would be wrong.
    """
    classes, temperature, threshold = (
        config[name] for name in ("classes", "temperature", "threshold")
    )
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: a list of names")
    if len(set(classes)) != len(classes) or len(classes) != scores:
        raise ValueError(
            f"classes: {len(classes)} names, {len(set(classes))} of them different,"
            f" for {scores} scores"
        )
    if not _is_finite(temperature) or temperature <= 0:
        raise ValueError(f"temperature {temperature!r}: a number above 0")
    if threshold is not None and not _is_finite(threshold):
        raise ValueError(f"threshold {threshold!r}: a number, or null")
    return Outputs(
        tuple(classes), float(temperature), None if threshold is None else float(threshold)
    )


def _is_finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]
