"""URLs in messages: what they hold of signatures and passwords."""

import pytest

from pathencoder.errors import SlideError
from pathencoder.redact import hide_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://h:1/d/a.svs?X=1&Y=%2F in 3 ms", "GET http://h:1/d/a.svs in 3 ms"),
        ('HTTPStore("https://h/d?sig=1")', 'HTTPStore("https://h/d")'),
        ("https://me:pass@h/a.svs: 403", "https://h/a.svs: 403"),
        ("is it there? https://h/a.svs", "is it there? https://h/a.svs"),
    ],
)
def test_texts_are_shown_without_secrets(text, shown):
    assert hide_secrets(text) == shown


def test_no_error_repeats_a_signature():
    error = SlideError("https:/host/a.svs?X-Amz-Signature=SECRET: no such file")
    assert str(error) == "https:/host/a.svs: no such file"
