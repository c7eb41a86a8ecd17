"""A run's config: YAML and key=value, typed, checked whole before anything starts."""

from __future__ import annotations

import functools
import os
import re
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from pydantic import BaseModel, ValidationError, create_model

from pathencoder.errors import ConfigError
from pathencoder.remote.objects import is_remote
from training import methods
from training.config.sections import (
    BackboneSettings,
    Config,
    DataSettings,
    ExportSettings,
    OptimSettings,
    RunSettings,
)
from training.data.values import nearest
from training.methods import MethodSettings

__all__ = [
    "BackboneSettings",
    "Config",
    "DataSettings",
    "ExportSettings",
    "OptimSettings",
    "RunSettings",
    "check",
    "dump",
    "load",
    "result_changing",
    "with_defaults",
]

# Keys at the top level that stand for longer ones.
_SHORT = {"minutes": "run.minutes", "out": "run.out", "steps": "optim.steps"}
# What PyYAML raises: ValueError for a date that does not exist and for bytes that are no text
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
# Settings of the backbone that no result depends on: how the export is read, and the start checked.
_OF_THE_EXPORT = ("embedding", "interpolation", "resize", "resize_size", "start_sha256")
# What to give where a setting without a default is missing.
_MISSING = {"data.root": "FOLDER, the folder of your tiles", "run.out": "FOLDER of the run"}


def load(recipe: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe, override some of its values, and check everything.

    Args:
        recipe: A YAML file. What it names to be read (`data.root`, `start_from`, `backbone.start`,
            `run.knn_sets`, `method.teachers`) is relative to its folder; `run.out` is relative to
            the current folder. In the config.yaml of a run all paths are as the run's command had
            them.
        overrides: key=value each; keys of inner settings are joined by dots, values are YAML. Paths
            are relative to the current folder.

    Returns:
        The config.

    Raises:
        ConfigError: There is no such file, or anything in it is wrong; the message lists every
            problem.
    """
    if not recipe.is_file():
        raise ConfigError(f"no recipe {str(recipe)!r}")
    values = _read(recipe)
    if not (recipe.name == "config.yaml" and (recipe.parent / "data.json").is_file()):
        _follow_paths(values, recipe.parent)
    problems: list[str] = []
    given = set()
    for item in overrides:
        try:
            given.add(_override(values, item))
        except ConfigError as error:
            problems.append(str(error))
    if "run.minutes" in given and not given & {"optim.steps", "run.fit_steps"}:
        values["run"]["fit_steps"] = values["run"]["minutes"] is not None
    return check(values, problems)


def _follow_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the paths of a recipe that are read relative to the current folder, in place."""

    def change(section: str, key: str, act: Callable[[Any], Any]) -> None:
        inner = values.get(section) if section else values
        if isinstance(inner, dict) and isinstance(inner.get(key), str | list):
            value = inner[key]
            inner[key] = list(map(act, value)) if isinstance(value, list) else act(value)

    for section, key in (("data", "root"), ("run", "knn_sets"), ("", "start_from")):
        change(section, key, lambda given: _from(folder, given))
    for section, key in (("backbone", "start"), ("method", "teachers")):
        change(section, key, lambda given: _encoder_from(folder, given))


def _from(folder: Path, given: Any) -> Any:
    """A path that is read from a folder; what is no path stays, for the check to refuse it."""
    if not isinstance(given, str) or not given or is_remote(given):
        return given
    try:
        joined = folder / Path(given).expanduser()
        plain = Path(os.path.normpath(joined))
        # a folder that is a link has another parent than its name says
        return str(plain if plain.resolve() == joined.resolve() else joined)
    # an unknown user after "~", a loop of links, a null character
    except (RuntimeError, ValueError, OSError):
        return given


def _encoder_from(folder: Path, given: Any) -> Any:
    """The same for weights or an encoder, which may also be a name."""
    if not isinstance(given, str):
        return given
    is_path = given.startswith((".", "~")) or given.endswith(".safetensors")
    if not (is_path or (folder / given / "config.json").is_file()):
        return given
    found = _from(folder, given)
    return found if found.startswith((".", "~")) or Path(found).is_absolute() else f"./{found}"


def _read(recipe: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, *_NOT_YAML) as error:
        raise ConfigError(f"{recipe} is not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{recipe} holds {type(values).__name__}, not settings: see --help")
    return values


def check(values: dict[str, Any], problems: Sequence[str] = ()) -> Config:
    """A Config from plain values, of which some problems may be known already.

    Raises:
        ConfigError: A value is wrong or a key unknown; the message lists every problem, with the
            nearest name for unknown keys.
    """
    found = list(problems)
    settings: type[MethodSettings] | None = None
    try:
        settings = methods.module_of(_method_named(values)).Settings
    except ConfigError as error:
        found.append(str(error))
    whole = _with_method(settings)
    try:
        checked = whole.model_validate(values)
    except ValidationError as error:
        found += [_explain(whole, e) for e in error.errors()]
    else:
        found += _too_large_crops(checked.method, checked.data.canvas)
    if found:
        raise ConfigError("; ".join(found))
    return Config.model_construct(**{name: getattr(checked, name) for name in whole.model_fields})


@functools.cache
def _with_method(settings: type[MethodSettings] | None) -> type[Config]:
    """The config of a method; of an unknown one (None) nothing else is known."""
    return create_model("Config", __base__=Config, method=(settings or Any, ...))


def _method_named(values: dict[str, Any]) -> str:
    method = values.get("method")
    if not isinstance(method, dict) or "name" not in method:
        raise ConfigError(f"method.name is missing: one of {', '.join(methods.names())}")
    return str(method["name"])


def _too_large_crops(method: Any, canvas: int) -> list[str]:
    """A crop is cut from the canvas, so it may not be larger."""
    if not isinstance(method, MethodSettings):  # the method is unknown
        return []
    return [
        f"method.{name}: crops of {px} px do not fit data.canvas={canvas}. Lower the former or"
        " raise the latter"
        for name, px in method.crop_sizes().items()
        if px > canvas
    ]


def dump(config: Config) -> dict[str, Any]:
    """Plain values that `check` reads back."""
    return {
        name: v.model_dump(mode="json") if isinstance(v, BaseModel) else _plain(v)
        for name, v in config
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def result_changing(values: dict[str, Any]) -> dict[str, Any]:
    """The part of dumped values on which results depend.

    That is all but `run`, `export`, how the embedding is read, and how the start is checked.
    """
    kept = {k: v for k, v in values.items() if k not in ("run", "export")}
    if "backbone" not in kept:
        return kept
    network = {k: v for k, v in kept["backbone"].items() if k not in _OF_THE_EXPORT}
    return {**kept, "backbone": network}


def settings_of_run(cfg: Config, *, half: bool) -> dict[str, Any]:
    """The settings on which the results of a run depend, as its checkpoints hold them.

    Args:
        cfg: The settings.
        half: Whether the forward passes are in bf16: what precision "auto" has chosen.
    """
    values = result_changing(dump(cfg))
    return {**values, "optim": {**values["optim"], "precision": "bf16" if half else "fp32"}}


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Result-changing settings of an older checkpoint, completed by today's defaults.

    One without `data.run` has drawn its tiles singly, wherever they were. Settings that today's
    config refuses are returned unchanged.
    """
    data = settings.get("data")
    if isinstance(data, dict):
        settings = {**settings, "data": {"run": 1, **data}}
    try:
        return result_changing(dump(check({**settings, "run": {"out": "."}})))
    except ConfigError:
        return settings


def _override(values: dict[str, Any], item: str) -> str:
    """Set the value of key=value, in place; returns the whole key."""
    name, equals, text = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is not key=value")
    key = _SHORT.get(name, name)
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{name!r}: {part!r} holds a value, not settings")
    try:
        values[last] = yaml.safe_load(text)
    except _NOT_YAML:
        raise ConfigError(f"{item!r}: the value is not readable as YAML") from None
    if key == "backbone.start":
        values.pop("start_sha256", None)  # it was that of the recipe's start
    return key


def _explain(model: type[BaseModel], error: Any) -> str:
    path, kind = ".".join(str(p) for p in error["loc"] if p != "[key]"), error["type"]
    if kind == "missing":
        return f"{path} is missing: give {path}={_MISSING.get(path, 'VALUE')}"
    if kind == "extra_forbidden":
        return f"{path}: no such setting{_nearest_setting(model, error['loc'])}"
    words = str(error["ctx"]["error"]) if kind == "value_error" else error["msg"]
    if kind == "literal_error":
        words += nearest(str(error["input"]), re.findall(r"'(.*?)'", words))
    return f"{path}: {words} (found {reprlib.repr(error['input'])})"


def _nearest_setting(model: type[BaseModel], place: Sequence[Any]) -> str:
    section: Any = model
    for part in place[:-1]:
        section = _settings_in(section.model_fields[part].annotation)
    known = section.model_fields
    return nearest(str(place[-1]), known) or f"; one of {', '.join(sorted(known))}"


def _settings_in(annotation: Any) -> Any:
    """The settings class of an annotation, also of `Settings | None`."""
    kinds = [k for k in (annotation, *get_args(annotation)) if hasattr(k, "model_fields")]
    return kinds[0]
