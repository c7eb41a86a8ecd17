"""Translate the errors of huggingface_hub to errors that say what to do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from pathencoder.errors import GatedEncoder, OfflineError, StoreError, UnknownEncoder
from pathencoder.pretrained.catalogue import nearest
from pathencoder.pretrained.hub_request import Request

TOKEN = "`hf auth login`, the variable HF_TOKEN, or token=..."
_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "requests")


class NoSuchFile(Exception):
    """The repository has no such file. Internal: callers of `Repository` translate it."""


@contextlib.contextmanager
def without_attempts() -> Iterator[None]:
    """Suppress the client's log line of each retry; the final error is reported once."""
    logger = logging.getLogger("huggingface_hub.utils._http")

    def quiet(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logger.addFilter(quiet)
    try:
        yield
    finally:
        logger.removeFilter(quiet)


def explain(error: Exception, asked: Request, filename: str) -> Exception:
    """The error to raise for a failed download of one file.

    Args:
        error: What huggingface_hub raised.
        asked: The repository.
        filename: The file.

    Returns:
        A PathEncoderError or NoSuchFile; `error` itself where its kind is unknown.
    """
    from huggingface_hub import errors

    refusals = (  # in this order: its errors inherit from one another
        (errors.GatedRepoError, _gated),
        (errors.RepositoryNotFoundError, _no_repository),
        (errors.RevisionNotFoundError, _no_revision),
        (errors.LocalEntryNotFoundError, _offline),
        (errors.EntryNotFoundError, _no_file),
        (errors.OfflineModeIsEnabled, _offline),
        (errors.HfHubHTTPError, _refused),
        (errors.HFValidationError, _no_name),
    )
    for kind, translate in refusals:
        if isinstance(error, kind):
            return translate(error, asked, filename)
    library = type(error).__module__.split(".")[0]
    if isinstance(error, ConnectionError | TimeoutError) or library in _HTTP_LIBRARIES:
        return _offline(error, asked, filename)
    return _unwritable(error, asked) if isinstance(error, OSError) else error


def _gated(error: Exception, asked: Request, filename: str) -> Exception:
    page = f"{_endpoint()}/{asked.repo}"
    if _status(error) == 403:
        return GatedEncoder(
            f"{asked.name}: the account of your token has no access to {asked.repo} yet. Accept its"
            f" terms at {page} (some owners decide by hand, which takes days), then load again"
        )
    return GatedEncoder(
        f"{asked.name}: {asked.repo} is gated. Accept its terms at {page} with your account, then"
        f" give its token: {TOKEN}"
    )


def _no_repository(error: Exception, asked: Request, filename: str) -> Exception:
    return UnknownEncoder(
        f"there is no repository {asked.repo} at {_endpoint()}, or it is"
        f" private{nearest(asked.repo)}. For a private one give a token that may read it: {TOKEN}"
    )


def _no_revision(error: Exception, asked: Request, filename: str) -> Exception:
    return UnknownEncoder(
        f"{asked.repo} has no revision {asked.revision!r}: its tags and commits are at"
        f" {_endpoint()}/{asked.repo}/commits/main"
    )


def _no_file(error: Exception, asked: Request, filename: str) -> Exception:
    return NoSuchFile(f"{asked.repo} has no file {filename}")


def _no_name(error: Exception, asked: Request, filename: str) -> Exception:
    return UnknownEncoder(
        f"{asked.repo!r} is not a repository name: owner/repo, letters, digits, '-', '_' and '.'"
    )


def _refused(error: Exception, asked: Request, filename: str) -> Exception:
    status = _status(error)
    if status in (401, 403):
        return GatedEncoder(
            f"{asked.name}: {_endpoint()} does not accept your token for {asked.repo} (status"
            f" {status}). Give a valid one: {TOKEN}"
        )
    return OfflineError(
        f"{asked.name}: {_endpoint()} answered {status} for {filename} of {asked.repo}. The problem"
        " is on the server: try again later"
    )


def _offline(error: Exception, asked: Request, filename: str) -> Exception:
    from huggingface_hub import constants

    off = bool(asked.access.local_files_only) or constants.HF_HUB_OFFLINE
    why = (
        "the network is disabled (HF_HUB_OFFLINE or local_files_only)"
        if off
        else f"{_endpoint()} does not answer"
    )
    cache = asked.access.cache_dir or constants.HF_HUB_CACHE
    at = f" at revision {asked.revision}" if asked.revision else ""
    mirror = "or set HF_ENDPOINT to a mirror of the Hub that this machine reaches"
    if asked.fetching:
        on = "Unset HF_HUB_OFFLINE. " if off else ""
        advice = (
            f"{on}Run this command on a connected machine and copy its cache folder here, {mirror}"
        )
    else:
        fetch = (
            f"On a connected machine: `pathencoder fetch {asked.name}`, then copy that cache here"
        )
        advice = f"{fetch}, {mirror}; load_encoder() needs no network"
    return OfflineError(
        f"{_gate(asked) or f'{asked.name}: '}{filename} of {asked.repo}{at} is not on this machine,"
        f" and {why}. Looked in {cache}. {advice}"
    )


def _gate(asked: Request) -> str:
    """That the encoder is gated, from the catalogue: offline, the Hub cannot report it."""
    if not asked.gate:
        return ""
    return (
        f"{asked.name} is gated ({asked.gate}): accept its terms at {_endpoint()}/{asked.repo},"
        f" then give the token of your account ({TOKEN}). Besides, "
    )


def _unwritable(error: OSError, asked: Request) -> Exception:
    from huggingface_hub import constants

    cache = asked.access.cache_dir or constants.HF_HUB_CACHE
    return StoreError(
        f"{asked.name}: cannot write to the cache {cache} ({error}). Free space there, or choose"
        " another: cache_dir=... or HF_HOME"
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
