"""Objects of S3, Google Cloud Storage, Azure and web servers, through obstore.

Credentials are those of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_..., and so
on) or of the machine's role, as obstore reads them.
"""

from __future__ import annotations

import datetime
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pathencoder.errors import ConfigError, MissingExtra, SlideError

_URL = re.compile(r"^(s3|gs|az|https?):/{1,2}(?=[^/])", re.IGNORECASE)
_WEB = ("http://", "https://")
_RETRY: Any = {"max_retries": 3, "retry_timeout": datetime.timedelta(seconds=60)}
_CLIENT = {"timeout": "300s", "connect_timeout": "20s"}

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class UrlPath(_Path):
    """A URL where a path is expected: `str` gives the URL with both of its slashes.

    A `Path` would write s3://bucket/a.svs with one slash.
    """

    def __str__(self) -> str:
        return as_url(super().__str__())

    def __fspath__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Object:
    """One object, as a store lists it.

    Attributes:
        name: Below the folder that was listed, with slashes.
        size: Bytes.
        etag: Changes with the content; "" where the server gives none. That of an upload in parts
            is no checksum.
        modified: Last change in nanoseconds.
    """

    name: str
    size: int
    etag: str
    modified: int


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL: s3://, gs://, az://, https:// or http://."""
    return bool(_URL.match(os.fspath(path)))


def as_url(text: str) -> str:
    """A URL with both slashes after its scheme, of which a `Path` keeps one."""
    return _URL.sub(lambda found: f"{found[1].lower()}://", text)


def split(url: str) -> tuple[str, str]:
    """The folder and the name of a URL: "s3://bucket/a/b.svs" is ("s3://bucket/a", "b.svs")."""
    scheme, _, rest = as_url(url).partition("://")
    folder, _, name = rest.rstrip("/").rpartition("/")
    if not folder:
        folder, name = name, ""
    return f"{scheme}://{folder}", unquote(name) if scheme.startswith("http") else name


@functools.lru_cache(maxsize=64)
def store_of(folder: str) -> Any:
    """The store of a folder's URL; the names of its objects are relative to the folder.

    Raises:
        MissingExtra: obstore is not installed.
        ConfigError: The URL has a query, or the store cannot be set up.
    """
    try:
        import obstore.store
    except ImportError as error:
        raise MissingExtra.of(
            "remote", "Reading slides of an object store or web server"
        ) from error
    scheme, _, rest = folder.partition("://")
    if "?" in rest and scheme.startswith("http"):
        raise ConfigError(
            f"{folder}: signed URLs (with '?') are not supported. Name the object itself, s3://,"
            " gs:// or az://, and give the credentials in the environment"
        )
    if not scheme.startswith("http"):
        rest = quote(rest, safe="/")
    client: Any = {**_CLIENT, **({"allow_http": True} if _allows_http(scheme) else {})}
    try:
        return obstore.store.from_url(
            f"{scheme}://{rest}", client_options=client, retry_config=_RETRY
        )
    except Exception as error:  # obstore's errors, and ValueError for a URL that it does not know
        raise ConfigError(f"{folder}: this store cannot be used: {first_line(error)}") from error


def head(url: str) -> Object | None:
    """The object of a URL; None where there is none.

    Raises:
        SlideError: The store does not answer, or refuses access.
    """
    folder, name = split(url)
    if not name:
        return None
    import obstore

    try:
        return _object(obstore.head(store_of(folder), name))
    except FileNotFoundError:
        return None
    except (MissingExtra, ConfigError):
        raise
    except Exception as error:
        raise SlideError(f"{as_url(url)}: {explain(error)}") from error


def listing(folder: str) -> list[Object]:
    """Every object below a folder, in the order of the names.

    Raises:
        SlideError: The store does not answer or refuses access, or it is a web server.
    """
    if folder.startswith(_WEB) and "amazonaws.com" not in folder:
        raise SlideError(
            f"{folder}: a web server does not list its files. Name each slide by its URL"
        )
    store = store_of(folder.rstrip("/"))
    import obstore

    try:
        found = [_object(meta) for batch in obstore.list(store) for meta in batch]
    except Exception as error:
        raise SlideError(f"{folder}: {explain(error)}") from error
    return sorted(found, key=lambda item: item.name)


def explain(error: Exception) -> str:
    """What went wrong at a store, as a sentence with what to do."""
    name, text = type(error).__name__, first_line(error)
    if name in ("PermissionDeniedError", "UnauthenticatedError") or "credential" in text.lower():
        return (
            f"access is refused ({text}). Set the store's credentials in the environment, or"
            " AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if isinstance(error, FileNotFoundError):
        return "no such object. Check the URL"
    return f"the store cannot be read ({text}). Check the network and the address"


def first_line(error: Exception) -> str:
    """The first line of an error; obstore adds the details of its request."""
    return str(error).strip().partition("\n")[0][:300]


def _allows_http(scheme: str) -> bool:
    """Whether plain HTTP is used: for http://, and for an endpoint that is named so."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    return scheme == "http" or endpoint.startswith("http://")


def _object(meta: Any) -> Object:
    modified = meta["last_modified"]
    return Object(
        str(meta["path"]),
        int(meta["size"]),
        str(meta.get("e_tag") or ""),
        round(modified.timestamp() * 1e9) if modified else 0,
    )
