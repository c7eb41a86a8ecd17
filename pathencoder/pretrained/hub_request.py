"""What is asked of the Hub, for its errors to name."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """Access to the Hub; None leaves a setting to huggingface_hub and its environment variables.

    Attributes:
        token: The access token.
        cache_dir: The cache of downloads.
        local_files_only: True: do not use the network.
        force_download: Whether to download what is in the cache again.
    """

    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool | None = None
    force_download: bool = False


@dataclass(frozen=True)
class Request:
    """One Hub repository at one revision, as it was asked for.

    Attributes:
        repo: owner/name.
        revision: A branch, tag or commit; None: the main branch.
        access: How the Hub is accessed.
        name: The name that the user gave.
        gate: The terms that must be accepted first, where the catalogue has them.
        fetching: Whether it is used by `pathencoder fetch`; changes the advice of errors.
    """

    repo: str
    revision: str | None
    access: Access
    name: str
    gate: str | None = None
    fetching: bool = False
