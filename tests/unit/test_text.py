"""Numbers as text."""

import pytest

from pathencoder.text import counted, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (75, "1 min 15 s"),
        (7300, "2 h 1 min"),
        (47 * 3600, "47 h 0 min"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_is_counted_agrees_with_its_number():
    assert [counted(n, "slide") for n in (0, 1, 2000)] == ["0 slides", "1 slide", "2,000 slides"]
    assert counted(1, "row was", "rows were") == "1 row was"
    assert counted(2, "row was", "rows were") == "2 rows were"
