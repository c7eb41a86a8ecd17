"""A run's config: YAML and key=value, typed, checked whole before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pathencoder.errors import ConfigError
from training import methods
from training.methods import MethodSettings


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Section):
    """Which tiles, and how often. licences, stains, without: filters on a manifest.

    empty: all. slide_power, organ_power, stain_power: 1 draws slides, organs, stains by their size,
    0 all of them equally often (training/data/sampler.py).
    """

    root: Path
    licences: tuple[str, ...] = ()
    stains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    canvas: int = Field(default=224, ge=32)  # tiles are brought to this size before the crops, px
    batch: int = Field(default=64, ge=2)  # over all processes
    slide_power: float = Field(default=0.5, ge=0, le=1)
    organ_power: float = Field(default=1.0, ge=0, le=1)
    stain_power: float = Field(default=1.0, ge=0, le=1)
    stain_weights: dict[str, float] = {}


class BackboneSettings(_Section):
    """A timm network, its start, and how it will be read. start.

    Safetensors in timm's keys, or an encoder that load_encoder reads (a folder, a name of
    `pathencoder list`), whose architecture, normalisation and readout hold where they are not
    given; None: nothing.
    """

    architecture: str = "mobilenetv2_100"
    args: dict[str, Any] = {}
    start: Path | str | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    embedding: str = "pool"
    input_size: int = 224
    # give BatchNorm layers that were folded into constants their statistics back
    real_statistics: bool = False


class OptimSettings(_Section):
    """AdamW with warm-up and cosine.

    Rates are for the batch as it is. accumulate: the batch goes through in so many parts, whose
    gradients are averaged: contrastive losses and BatchNorm then see one part at a time, not the
    batch. precision: "auto" is bf16 autocast where the machine gains from it (GPUs; CPUs with bf16
    instructions for networks without grouped convolutions, which then train 1.5 to 1.9 times as
    fast), else fp32. Name one to be alike on every machine.
    """

    steps: int = Field(ge=1)
    lr: float = Field(
        default=3e-4, ge=0
    )  # 0: a control run, in which BatchNorm statistics alone settle
    lr_end: float = Field(default=1e-6, ge=0)
    head_lr: float = Field(default=1e-3, ge=0)
    warmup: int = Field(default=50, ge=0)
    weight_decay: tuple[float, float] = (1e-3, 1e-3)  # from, to
    clip: float = Field(default=10.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class RunSettings(_Section):
    """What does not change results.

    where, how long, how often, by what means. compile, checkpoint_activations and parallel do the
    same sums in another order, so that last bits may differ; compiled networks also draw anew which
    blocks stochastic depth skips. knn_sets: folders with a labels.csv; their train parts alone are
    read.
    """

    out: Path
    # stop cleanly with a checkpoint; the same command goes on
    minutes: float | None = Field(default=None, gt=0)
    threads: int = Field(default=1, ge=1)  # of torch, a process
    loaders: int = Field(default=1, ge=1)  # threads that decode tiles, a process
    # processes that decode tiles in the threads' place, a process: for GPUs
    loader_processes: int = Field(default=0, ge=0)
    # Decoded tiles stay in memory up to here, a process (also of loader_processes): spares decoding
    # where a corpus is gone through often.
    keep_mb: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=100, ge=1)
    log_every: int = Field(default=10, ge=1)
    knn_every: int = Field(default=0, ge=0)  # 0: only at the start and the end
    knn_sets: tuple[Path, ...] = ()
    device: str = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"  # with several processes; fsdp for ViT-L and up
    compile: bool = False  # blocks by torch.compile
    checkpoint_activations: bool = False  # less memory, a third more time
    # so many batches with a loss or gradient that is not finite, in a row, stop the run
    bad_batches: int = Field(default=5, ge=1)
    tensorboard: bool = False
    wandb: str | None = None  # a Weights and Biases project


class ExportSettings(_Section):
    """What is exported, and what the folder says of itself. start_share.

    The share of the starting weights in an average with the trained ones (Wortsman et al. 2022,
    arXiv:2109.01903); 0: the trained weights as they are.
    """

    start_share: float = Field(default=0.0, ge=0, lt=1)
    name: str = "encoder"
    licence: str = "unknown"
    commercial: bool = False
    summary: str = ""
    stains: tuple[str, ...] = ("he",)
    mpp: float | None = None


class Config(_Section):
    """A whole config.

    Attributes:
        start_from: A run or checkpoint whose method, heads and optimiser this run starts with, at
            its own step 0.
        method: The `Settings` of the method's file.
    """

    seed: int = 0
    start_from: Path | None = None
    data: DataSettings
    backbone: BackboneSettings = BackboneSettings()
    optim: OptimSettings
    run: RunSettings
    export: ExportSettings = ExportSettings()
    method: MethodSettings


# Keys at the top level that stand for longer ones.
_SHORT = {"minutes": "run.minutes", "out": "run.out", "steps": "optim.steps"}


def load(recipe: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe, lay key=value over it, and check everything.

    Raises ConfigError that lists every problem at once.
    """
    if not recipe.is_file():
        raise ConfigError(f"no recipe {str(recipe)!r}")
    values = yaml.safe_load(recipe.read_text()) or {}
    for item in overrides:
        _lay_over(values, item)
    return check(values)


def check(values: dict[str, Any]) -> Config:
    """A Config from plain values. Raises ConfigError with the nearest name for every unknown key."""
    settings = methods.module_of((values.get("method") or {}).get("name", "")).Settings
    whole = create_model("Config", __base__=Config, method=(settings, ...))
    try:
        checked = whole.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(whole, e) for e in error.errors())) from None
    _refuse_large_crops(checked.method, checked.data.canvas)
    return Config.model_construct(**{name: getattr(checked, name) for name in whole.model_fields})


def _refuse_large_crops(method: MethodSettings, canvas: int) -> None:
    """A crop is cut from the canvas, so it may not be larger."""
    for name, px in method.crop_sizes().items():
        if px > canvas:
            raise ConfigError(
                f"method.{name}: crops of {px} px do not fit data.canvas={canvas}. Lower the one or"
                " raise the other"
            )


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

    All but `run`, what the export says of itself, and how it will be read.
    """
    kept = {k: v for k, v in values.items() if k not in ("run", "export")}
    return (
        {**kept, "backbone": {k: v for k, v in kept["backbone"].items() if k != "embedding"}}
        if "backbone" in kept
        else kept
    )


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Result-changing settings of an older checkpoint, with what has become a setting since at its default; as they are where
    they no longer fit."""
    try:
        return result_changing(dump(check({**settings, "run": {"out": "."}})))
    except ConfigError:
        return settings


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
    return f"{path}: no such setting" + (
        f"; nearest: {near[0]}" if near else f"; one of {sorted(section.model_fields)}"
    )
