"""The settings of a config: their meaning, default and bounds, read from the typed config.

A setting's meaning is its entry in the `Attributes` section of its class's docstring.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training import config, methods

_WIDTH = 100
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
_ENTRY = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: Its key on the command line: optim.lr.
        meaning: A sentence from its class.
        default: As a recipe would write it; "required" without one, "" for a group of settings.
        bounds: Of its values, or the choices; "" for none.
    """

    name: str
    meaning: str
    default: str
    bounds: str

    @property
    def text(self) -> str:
        """The setting in some lines, as help shows it."""
        beside = ", ".join(part for part in (self.default, self.bounds) if part)
        head = f"{self.name}  [{beside}]" if beside else self.name
        return f"  {head}\n" + textwrap.fill(
            self.meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
        )


def help_text() -> str:
    """All settings in groups, then those of each method."""
    return "\n\n".join(
        f"{title}: {about}\n" + "\n".join(s.text for s in found)
        for title, about, found in sections()
    )


def sections() -> list[tuple[str, str, list[Setting]]]:
    """All settings in groups: the key of a group, what it is, and its settings."""
    top = [s for s in of(config.Config) if s.name != "method"]
    groups = [("top level", _about(config.Config), top)]
    for name, field in config.Config.model_fields.items():
        if name != "method" and (inner := _model_in(field.annotation)):
            groups.append((name, _about(inner), list(of(inner, f"{name}."))))
    for name in methods.names():
        kind = methods.module_of(name).Settings
        found = [s for s in of(kind, "method.") if s.name != "method.name"]
        groups.append((f"method.name={name}", _about(kind), found))
    return groups


def _about(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def of(
    model: type[BaseModel], prefix: str = "", base: BaseModel | None = None
) -> Iterator[Setting]:
    """The settings of a class and of the classes inside it.

    Args:
        model: The class.
        prefix: The key of the class, with a dot.
        base: What the class is by default where it is inside another one.

    Yields:
        Each setting, in the order of the class; those of an inner class after its own entry.
    """
    known = meanings(model)
    for name, field in model.model_fields.items():
        if _is_section(model, name):
            continue
        inner, default = _model_in(field.annotation), _default(field, base, name)
        shown = "" if isinstance(default, BaseModel) else as_yaml(default)
        required = field.is_required() and base is None
        yield Setting(
            prefix + name, known.get(name, ""), "required" if required else shown, _bounds(field)
        )
        if inner:
            inside = default if isinstance(default, BaseModel) else None
            yield from of(inner, f"{prefix}{name}.", inside)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> its entry in the docstring of the class, or of the class it inherits from."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__doc__ and issubclass(kind, BaseModel):
            found |= _attributes(inspect.cleandoc(kind.__doc__))
    return found


def different(cfg: BaseModel, prefix: str = "", base: BaseModel | None = None) -> dict[str, Any]:
    """The settings that differ from their defaults.

    Args:
        cfg: A config or a part of it.
        prefix: The key of the part, with a dot.
        base: What the part is by default.

    Returns:
        Key -> value.
    """
    found: dict[str, Any] = {}
    for name, field in type(cfg).model_fields.items():
        value, default = getattr(cfg, name), _default(field, base, name)
        if isinstance(value, BaseModel):
            inside = default if type(default) is type(value) else None
            found |= different(value, f"{prefix}{name}.", inside)
        elif value != default or (field.is_required() and base is None):
            found[prefix + name] = value
    return found


def _is_section(model: type[BaseModel], name: str) -> bool:
    return model is config.Config and _model_in(model.model_fields[name].annotation) is not None


def _attributes(doc: str) -> dict[str, str]:
    """The entries of the section `Attributes` of a docstring."""
    _, _, section = doc.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1]
            found[name] = entry[2]
        elif line.startswith("        ") and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break  # the next section
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class of an annotation, also of `Settings | None`."""
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel)), None)


def _default(field: FieldInfo, base: BaseModel | None, name: str) -> Any:
    if base is not None:
        return getattr(base, name)
    return None if field.is_required() else field.get_default(call_default_factory=True)


def as_yaml(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or '""'


def _bounds(field: FieldInfo) -> str:
    leaves = list(_leaves(field.annotation))
    found = _limits(field.metadata)
    for kind in leaves:
        if get_origin(kind) is Annotated:
            inside = [m for part in get_args(kind)[1:] for m in getattr(part, "metadata", ())]
            found += _limits(inside)
    choices = [c for c in leaves if get_origin(c) is Literal]
    found += ["one of " + ", ".join(map(str, get_args(c))) for c in choices]
    return ", ".join(dict.fromkeys(found))


def _limits(metadata: Iterable[Any]) -> list[str]:
    return [
        f"{sign} {getattr(limit, name):g}"
        for limit in metadata
        for name, sign in _SIGNS.items()
        if getattr(limit, name, None) is not None
    ]


def _leaves(annotation: Any) -> Iterator[Any]:
    """The annotation, and those inside a union, a tuple or an Annotated."""
    yield annotation
    if get_origin(annotation) is not Literal:
        inside = get_args(annotation)
        for part in inside[:1] if get_origin(annotation) is Annotated else inside:
            yield from _leaves(part)
