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
