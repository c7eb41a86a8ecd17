"""The kinds of head by name. A new kind is one file and one row here."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from pathencoder.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from pathencoder.heads.rows import Model

# family -> module with `fit(request)` and `load(files, device)`, which return a head
_FAMILIES = {
    "classifier": "pathencoder.heads.classification",
    "dense": "pathencoder.heads.dense.family",
    "slide": "pathencoder.heads.slide.family",
}
# name -> family, module, class of its options, or class that has them as `Options`
_KINDS = {
    "linear": ("classifier", "pathencoder.heads.linear", "Linear"),
    "mlp": ("classifier", "pathencoder.heads.mlp", "Network"),
    "knn": ("classifier", "pathencoder.heads.knn", "Neighbours"),
    "prototypes": ("classifier", "pathencoder.heads.prototypes", "Prototypes"),
    "glands": ("dense", "pathencoder.heads.dense.options", "DenseOptions"),
    "nuclei": ("dense", "pathencoder.heads.dense.options", "DenseOptions"),
    "points": ("dense", "pathencoder.heads.dense.options", "DenseOptions"),
    "pixels": ("dense", "pathencoder.heads.dense.options", "DenseOptions"),
    "abmil": ("slide", "pathencoder.heads.slide.options", "AbmilOptions"),
    "slide-mean": ("slide", "pathencoder.heads.slide.options", "SlideOptions"),
    "slide-max": ("slide", "pathencoder.heads.slide.options", "MaxOptions"),
}


def names(family: str | None = None) -> list[str]:
    """The names of all kinds, or of those of a family."""
    return [name for name, (own, *_) in _KINDS.items() if family in (None, own)]


def family_of(name: object) -> str:
    """The family of a kind: "classifier", "dense" or "slide".

    Raises:
        ConfigError: There is no such kind.
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise ConfigError(f"head={name!r}: one of {', '.join(_KINDS)}{_close(name, _KINDS)}")
    return _KINDS[name][0]


def family_module(name: object) -> ModuleType:
    """The module that fits and loads heads of a kind.

    Raises:
        ConfigError: There is no such kind.
        MissingExtra: An optional dependency of it is not installed.
    """
    return _imported(_FAMILIES[family_of(name)], name)


def kind(name: object) -> type[Model]:
    """The class of a kind of classifier.

    Raises:
        ConfigError: There is no such kind, or it is of another family.
    """
    if family_of(name) != "classifier":
        raise ConfigError(
            f"head={name!r} is no classifier: one of {', '.join(names('classifier'))}"
        )
    return cast("type[Model]", _holder(name))


def options_of(name: str, given: Mapping[str, Any]) -> Any:
    """The options of a kind of head.

    Args:
        name: Of the kind.
        given: Values by the name of the option.

    Raises:
        ConfigError: The kind has no such option, or a value does not fit.
    """
    family_of(name)
    made = getattr(_holder(name), "Options", _holder(name))
    known = [field.name for field in dataclasses.fields(made)]
    for option in given:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has no options"
            raise ConfigError(f"{option}: the head {name!r} {has}{_close(option, known)}")
    try:
        return made(**given)
    except TypeError as error:
        raise ConfigError(f"the options of the head {name!r} do not fit: {error}") from error


def _holder(name: object) -> Any:
    _, module, attribute = _KINDS[str(name)]
    return getattr(_imported(module, name), attribute)


def _imported(module: str, head: object) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] == "pathencoder":
            raise
        raise MissingExtra.of("heads", f"the head {head!r}") from error


def _close(name: object, known: Iterable[str]) -> str:
    by_folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(str(name).casefold(), list(by_folded), n=1)
    return f". Did you mean {by_folded[near[0]]!r}?" if near else ""
