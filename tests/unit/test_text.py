"""Numbers as text."""

import pytest

from pathencoder.text import duration


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
