"""Arguments of Python functions, checked before any work: paths and numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.remote.objects import is_remote, url_path
from pathencoder.walk import expanded


def path_given(given: object, name: str) -> Path:
    """A path that a user gave.

    Args:
        given: A path, in which ~ is expanded, or a URL.
        name: Of the argument, for the error.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{name}={type(given).__name__}: a path is needed")
    return url_path(given) if is_remote(given) else expanded(given)


def paths_given(given: object, name: str) -> list[Path]:
    """One path or several, as `path_given`.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | os.PathLike):
        return [path_given(one, name) for one in given]
    return [path_given(given, name)]


def is_number(given: object) -> bool:
    """Whether an argument is one finite number; True and False are none."""
    return isinstance(given, Real) and not isinstance(given, bool) and math.isfinite(given)
