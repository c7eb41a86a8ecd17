"""Texts without the secrets of URLs: a signature in the query, a password before the host."""

from __future__ import annotations

import re

_END = r"(?=:?(?:[\s\"')]|$))"  # a colon at the end is the message's
# "https:/": a URL that was taken as a path
_QUERY = re.compile(
    r"(https?:/{1,2})(?:[^\s/?#@]+@)?([^\s?\"']*)\?[^\s\"')]*?" + _END, re.IGNORECASE
)
_USER = re.compile(r"(https?:/{1,2})[^\s/?#@]+@", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """A text in which URLs have neither query, user nor password, as errors of libraries do."""
    return _USER.sub(r"\1", _QUERY.sub(r"\1\2", text))
