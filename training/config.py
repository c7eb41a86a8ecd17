"""A run's config: YAML and key=value, typed, checked whole before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pathencoder.errors import ConfigError
from training import methods


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Section):
    """Which tiles, and how often. licences, stains, without: filters on a manifest; empty: all."""

    root: Path
    licences: tuple[str, ...] = ()
    stains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    canvas: int = Field(224, ge=32)  # tiles are brought to this size before the crops, px
    batch: int = Field(64, ge=2)  # over all processes
    slide_power: float = Field(0.5, ge=0, le=1)
    stain_weights: dict[str, float] = {}


class BackboneSettings(_Section):
    """A timm network, its start, and how it will be read. start: safetensors in timm's keys; None: nothing."""

    architecture: str = "mobilenetv2_100"
    args: dict[str, Any] = {}
    start: Path | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    embedding: str = "pool"
    input_size: int = 224
    real_statistics: bool = False  # give BatchNorm layers that were folded into constants their statistics back


class OptimSettings(_Section):
    """AdamW with warm-up and cosine. Rates are for the batch as it is."""

    steps: int = Field(ge=1)
    lr: float = Field(3e-4, gt=0)
    lr_end: float = Field(1e-6, ge=0)
    head_lr: float = Field(1e-3, gt=0)
    warmup: int = Field(50, ge=0)
    weight_decay: tuple[float, float] = (1e-3, 1e-3)  # from, to
    clip: float = Field(10.0, gt=0)


class RunSettings(_Section):
    """What does not change results: where, how long, how often."""

    out: Path
    minutes: float | None = Field(None, gt=0)  # stop cleanly with a checkpoint; the same command goes on
    threads: int = Field(1, ge=1)
    checkpoint_every: int = Field(100, ge=1)
    log_every: int = Field(10, ge=1)
    knn_every: int = Field(0, ge=0)  # 0: only at the start and the end
    knn_sets: tuple[Path, ...] = ()  # folders with a labels.csv; their train parts alone are read
    device: str = "auto"


class ExportSettings(_Section):
    """What is exported, and what the folder says of itself. start_share: the share of the starting weights in an average with
    the trained ones (Wortsman et al. 2022, arXiv:2109.01903); 0: the trained weights as they are."""

    start_share: float = Field(0.0, ge=0, lt=1)
    name: str = "encoder"
    licence: str = "unknown"
    commercial: bool = False
    summary: str = ""
    stains: tuple[str, ...] = ("he",)
    mpp: float | None = None


class _Base(_Section):
    seed: int = 0
    data: DataSettings
    backbone: BackboneSettings = BackboneSettings()
    optim: OptimSettings
    run: RunSettings
    export: ExportSettings = ExportSettings()


class Config(_Base):
    """The whole. `method` is the settings class of the method's own file."""

    method: Any = None


# Keys at the top level that stand for longer ones.
_SHORT = {"minutes": "run.minutes", "out": "run.out", "steps": "optim.steps"}


def load(recipe: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe, lay key=value over it, and check everything. Raises ConfigError that lists every problem at once."""
    if not recipe.is_file():
        raise ConfigError(f"no recipe {str(recipe)!r}")
    values = yaml.safe_load(recipe.read_text()) or {}
    for item in overrides:
        _lay_over(values, item)
    return check(values)


def check(values: dict[str, Any]) -> Config:
    """A Config from plain values. Raises ConfigError with the nearest name for every unknown key."""
    settings = methods.module_of((values.get("method") or {}).get("name", "")).Settings
    whole = create_model("Config", __base__=_Base, method=(settings, ...))
    try:
        checked = whole.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(whole, e) for e in error.errors())) from None
    return Config.model_construct(**{name: getattr(checked, name) for name in whole.model_fields})


def dump(config: Config) -> dict[str, Any]:
    """Plain values that `check` reads back."""
    return {name: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for name, v in config}


def result_changing(values: dict[str, Any]) -> dict[str, Any]:
    """The part of dumped values on which results depend: all but `run` and what the export says of itself."""
    return {k: v for k, v in values.items() if k not in ("run", "export")}


def _lay_over(values: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals:
        raise ConfigError(f"{item!r} is not key=value")
    *path, last = _SHORT.get(key, key).split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key!r}: {part!r} holds a value, not settings")
    values[last] = yaml.safe_load(text)


def _explain(model: type[BaseModel], error: Any) -> str:
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']} (found {error.get('input')!r})"
    section: Any = model
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, n=1, cutoff=0.4)
    return f"{path}: no such setting" + (f"; nearest: {near[0]}" if near else f"; one of {sorted(section.model_fields)}")
