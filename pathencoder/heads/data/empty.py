"""Which cells of tables hold no value: one rule for every kind of data set."""

from __future__ import annotations

# an empty cell, as tables, pandas, R and databases write it
_EMPTY = frozenset({"", "nan", "<na>", "na", "n/a", "null"})
# in addition, where no such name can be meant: a class may be called "none", "unknown" or "-"
_NO_VALUE = _EMPTY | {"none", "unknown", "?", "-"}


def is_empty(text: str) -> bool:
    """Whether a label or a part is an empty cell."""
    return text.strip().casefold() in _EMPTY


def is_no_value(text: str) -> bool:
    """Whether a group or a scale is an empty cell, or a word for "not known"."""
    return text.strip().casefold() in _NO_VALUE
