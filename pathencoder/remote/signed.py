"""The secrets in URLs of web servers: a signature in the query, a password before the host.

They are kept in memory, apart from the URL, so that no message, log or feature file can hold them.
A URL without its secrets names the same object, whatever its signature of today.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from pathencoder.errors import ConfigError

_SECRETS: dict[str, str] = {}  # URL without secrets -> with them


def without_secrets(url: str) -> str:
    """A URL without query, user and password, which `with_secrets` adds again in this process.

    Args:
        url: A URL. Those of object stores have no secrets, and are returned as they are.

    Raises:
        ConfigError: It cannot be parsed; the message does not repeat it.
    """
    if not url.lower().startswith(("http://", "https://")):
        return url
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"a URL cannot be used ({error}): check how it is written") from None
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    whole = urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
    if whole != bare:
        _SECRETS[bare] = whole
    return bare


def with_secrets(url: str) -> str:
    """The URL as it was given to `without_secrets`; a URL without secrets as it is."""
    return _SECRETS.get(url, url)


def is_signed(url: str) -> bool:
    """Whether a URL, as `without_secrets` returned it, has secrets."""
    return url in _SECRETS
