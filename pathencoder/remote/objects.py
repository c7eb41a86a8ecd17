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
from pathencoder.redact import hide_secrets
from pathencoder.remote.signed import is_signed, with_secrets, without_secrets

_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}  # fsspec's and Hadoop's names
_URL = re.compile(r"^(s3a?|gc?s|az|abfss?|https?):/{1,2}(?=[^/])", re.IGNORECASE)
_WEB = ("http://", "https://")
# Buckets that anyone may read, of the NCI Imaging Data Commons, in the region where they lie
_PUBLIC = {
    f"s3://{name}": "us-east-1"
    for name in ("idc-open-data", "idc-open-data-two", "idc-open-data-cr")
}
_ENVIRONMENT = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}  # how their variables begin
_RETRY: Any = {"max_retries": 3, "retry_timeout": datetime.timedelta(seconds=60)}
_OF_STORE = ("GenericError", "UnauthenticatedError")  # obstore's, that concern all objects
_CLIENT = {"timeout": "300s", "connect_timeout": "20s"}

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class Unreachable(SlideError):
    """A store that does not answer, or that refuses the credentials: not one object alone."""


class UrlPath(_Path):
    """A URL where a path is expected: `str` gives the URL with both of its slashes.

    A `Path` would write s3://bucket/a.svs with one slash. Make it with `url_path`, which removes
    secrets.
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
    """Whether a path is a URL: s3://, gs://, az://, https:// or http://, or fsspec's name of one.

    fsspec's names are s3a://, gcs://, abfs:// and abfss://.
    """
    return bool(_URL.match(os.fspath(path)))


def as_url(text: str) -> str:
    """A URL with both slashes after its scheme, of which a `Path` keeps one; fsspec's as ours."""
    return _URL.sub(lambda found: f"{_SAME.get(low := found[1].lower(), low)}://", text)


def url_path(given: str | os.PathLike[str]) -> UrlPath:
    """A URL as the user gave it, where a path is expected; its secrets are kept apart."""
    return UrlPath(without_secrets(as_url(os.fspath(given))))


def join(folder: str, name: str) -> str:
    """The URL of an object: what `split` takes apart."""
    return f"{folder}/{quote(name) if folder.startswith('http') else name}"


def split(url: str) -> tuple[str, str]:
    """The folder and the name of a URL: "s3://bucket/a/b.svs" is ("s3://bucket/a", "b.svs")."""
    scheme, _, rest = as_url(url).partition("://")
    folder, _, name = rest.rstrip("/").rpartition("/")
    if not folder:
        folder, name = name, ""
    return f"{scheme}://{folder}", unquote(name) if scheme.startswith("http") else name


def located(url: str) -> tuple[Any, str]:
    """The store of an object, and the object's name in it.

    Args:
        url: Of the object. The secrets that it was given with, if any, are used.

    Raises:
        MissingExtra: obstore is not installed.
        ConfigError: The store cannot be set up.
    """
    folder, name = split(url)
    if not is_signed(url):
        return store_of(folder), name
    whole, _, query = with_secrets(url).partition("?")
    return store_of(split(whole)[0], query), name


@functools.lru_cache(maxsize=64)
def store_of(folder: str, query: str = "") -> Any:
    """The store of a folder's URL; the names of its objects are relative to the folder.

    Args:
        folder: The URL.
        query: That every request carries, to a web server.

    Raises:
        MissingExtra: obstore is not installed.
        ConfigError: The URL of the folder has a query, or the store cannot be set up.
    """
    if folder.startswith(_WEB) and "?" in folder:
        raise ConfigError(
            f"{hide_secrets(folder)}: a signed URL (with '?') names one slide, not a folder. Name"
            " each slide by a signed URL of its own"
        )
    try:
        import obstore.store
    except ImportError as error:
        raise MissingExtra.of(
            "remote", "Reading slides of an object store or web server"
        ) from error
    scheme, _, rest = folder.partition("://")
    if not scheme.startswith("http"):
        rest = quote(rest, safe="/@")
    client: Any = {**_CLIENT, **({"allow_http": True} if _allows_http(scheme) else {})}
    try:
        if query:  # whoever signed it, it is read as a file of a web server
            return obstore.store.HTTPStore(
                f"{folder}?{query}", client_options=client, retry_config=_RETRY
            )
        return obstore.store.from_url(
            f"{scheme}://{rest}",
            config=_config(f"{scheme}://{rest}"),
            client_options=client,
            retry_config=_RETRY,
        )
    except Exception as error:  # obstore's errors, and ValueError for a URL that it does not know
        raise ConfigError(
            f"{hide_secrets(folder)}: this store cannot be used: {first_line(error)}"
        ) from without_details(error)


def head(url: str) -> Object | None:
    """The object of a URL; None where there is none.

    Raises:
        Unreachable: The store does not answer, or refuses the credentials.
        SlideError: It refuses access to the object.
    """
    if not split(url)[1]:
        return None
    try:
        store, name = located(url)
        return _object(_front(store, name) if is_signed(url) else _head(store, name))
    except FileNotFoundError:
        return None
    except (MissingExtra, ConfigError):
        raise
    except Exception as error:
        raise unread(error, as_url(url), url) from without_details(error)


def _head(store: Any, name: str) -> Any:
    import obstore

    return obstore.head(store, name)


def _front(store: Any, name: str) -> Any:
    """What is known of an object by a GET of its first byte: a signature for GET allows no HEAD."""
    import obstore

    try:
        return obstore.get(store, name, options={"range": (0, 1)}).meta
    except Exception as error:
        if type(error).__name__ != "NotSupportedError":  # the server does not give parts
            raise
        return obstore.get(store, name).meta


def listing(folder: str) -> list[Object]:
    """Every object below a folder, in the order of the names.

    Raises:
        Unreachable: The store does not answer, or refuses the credentials.
        SlideError: It refuses access, or is a web server.
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
        raise unread(error, folder) from without_details(error)
    return sorted(found, key=lambda item: item.name)


def unread(error: Exception, named: str, url: str = "") -> SlideError:
    """The error of an object or a folder that cannot be read.

    Args:
        error: Of obstore.
        named: What the message names.
        url: Of the object, where it may be signed.
    """
    kind = Unreachable if type(error).__name__ in _OF_STORE else SlideError
    return kind(f"{named}: {explain(error, url)}")


def explain(error: Exception, url: str = "") -> str:
    """What went wrong at a store, as a sentence with what to do.

    Args:
        error: Of obstore.
        url: Of the object, where it may be signed.
    """
    name, text = type(error).__name__, first_line(error)
    if name in ("PermissionDeniedError", "UnauthenticatedError") or "credential" in text.lower():
        if is_signed(url):
            return f"access is refused ({text}). The signature may have expired: sign the URL again"
        return (
            f"access is refused ({text}). Set the store's credentials in the environment, or"
            " AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if isinstance(error, FileNotFoundError):
        return "no such object. Check the URL"
    return f"the store cannot be read ({text}). Check the network and the address"


def first_line(error: Exception) -> str:
    """The first line of an error without secrets; obstore adds the details of its request."""
    return hide_secrets(str(error)).strip().partition("\n")[0][:300]


def without_details(error: Exception) -> Exception | None:
    """An error as the cause of another; None where its text has secrets, which --debug prints."""
    return error if hide_secrets(str(error)) == str(error) else None


def _config(url: str) -> Any:
    """Settings of a store beyond those of the environment: none but for public buckets."""
    region = _PUBLIC.get("/".join(url.split("/")[:3]))
    return {"skip_signature": True, "region": region} if region else None


def _allows_http(scheme: str) -> bool:
    """Whether plain HTTP is used: for http://, and where the environment says so for a store."""
    if scheme in ("http", "https"):
        return scheme == "http"
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    allowed = os.environ.get(f"{_ENVIRONMENT[scheme]}_ALLOW_HTTP", "")
    return allowed.lower() in ("1", "true") or (scheme == "s3" and endpoint.startswith("http://"))


def _object(meta: Any) -> Object:
    modified = meta["last_modified"]
    return Object(
        str(meta["path"]),
        int(meta["size"]),
        str(meta.get("e_tag") or ""),
        round(modified.timestamp() * 1e9) if modified else 0,
    )
