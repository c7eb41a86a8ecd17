"""Numbers as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A duration as text: 4.2 s, 1 min 15 s, 2 h 1 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours < 1:
        return f"{minutes} min {rest} s"
    return f"{hours} h {minutes_left} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def counted(count: int, one: str, many: str = "") -> str:
    """A number and what it counts: "1 slide", "2,000 slides", "1 row was", "2 rows were".

    Args:
        count: The number.
        one: The words for one.
        many: The words for another number; `one` with an s, if none.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
