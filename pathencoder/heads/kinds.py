"""The kinds of head by name. A new kind is one file and one row here."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from pathencoder.errors import ConfigError

if TYPE_CHECKING:
    from pathencoder.heads.rows import Model

# name -> module, class
_KINDS = {
    "linear": ("pathencoder.heads.linear", "Linear"),
    "mlp": ("pathencoder.heads.mlp", "Network"),
    "knn": ("pathencoder.heads.knn", "Neighbours"),
    "prototypes": ("pathencoder.heads.prototypes", "Prototypes"),
}


def names() -> list[str]:
    """The names of all kinds."""
    return list(_KINDS)


def kind(name: object) -> type[Model]:
    """The class of a kind of head.

    Raises:
        ConfigError: There is no such kind.
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ConfigError(f"head={name!r}: one of {', '.join(_KINDS)}{_close(name, _KINDS)}")
    module, attribute = _KINDS[name]
    return cast("type[Model]", getattr(importlib.import_module(module), attribute))


def options_of(name: str, given: Mapping[str, Any]) -> Any:
    """The options of a kind of head.

    Args:
        name: Of the kind.
        given: Values by the name of the option.

    Raises:
        ConfigError: The kind has no such option, or a value does not fit.
    """
    made = kind(name).Options
    known = [field.name for field in dataclasses.fields(made)]
    for option in given:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has no options"
            raise ConfigError(f"{option}: the head {name!r} {has}{_close(option, known)}")
    try:
        return made(**given)
    except TypeError as error:
        raise ConfigError(f"the options of the head {name!r} do not fit: {error}") from error


def _close(name: object, known: Iterable[str]) -> str:
    by_folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(str(name).casefold(), list(by_folded), n=1)
    return f". Did you mean {by_folded[near[0]]!r}?" if near else ""
