"""A run's config: YAML and key=value, typed, checked whole before anything starts."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pathencoder.errors import ConfigError
from training import methods
from training.methods import MethodSettings


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Section):
    """Which tiles, and how often.

    Attributes:
        root: Folder of the tiles: images in any subfolder, or tar shards with a manifest.csv or
            slides.csv.
        licences: Licences of a manifest that are read; empty: all.
        stains: The same for stain classes.
        without: Sources of a manifest that are left out.
        canvas: Tiles are resized to this side before crops are taken, px.
        batch: Over all processes.
        slide_power: 1 draws slides by their number of tiles, 0 all equally often
            (training/data/sampler.py).
        organ_power: The same for organs.
        stain_power: The same for stains.
        stain_weights: How many times as often a stain class is drawn.
    """

    root: Path
    licences: tuple[str, ...] = ()
    stains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    canvas: int = Field(default=224, ge=32)
    batch: int = Field(default=64, ge=2)
    slide_power: float = Field(default=0.5, ge=0, le=1)
    organ_power: float = Field(default=1.0, ge=0, le=1)
    stain_power: float = Field(default=1.0, ge=0, le=1)
    stain_weights: dict[str, float] = {}


class BackboneSettings(_Section):
    """A timm network, its starting weights, and how its embedding is read.

    Attributes:
        architecture: timm's name of the network.
        args: Arguments of timm's create_model.
        start: A safetensors file in timm's keys, or an encoder that `load_encoder` takes (a
            folder, a name of `pathencoder list`). Its architecture is then the encoder's, whose
            normalisation and readout are used where they are not set here. None: random weights.
        start_sha256: The sha256 that `start`, a file, must have; None: any.
        mean: Normalisation of the images: mean of R, G and B in 0 to 1.
        std: The same: standard deviation.
        embedding: How the exported encoder's embedding is read: pool, cls, mean, cls_mean, or
            stages:a,b/mean,centre,max (inner stages of a CNN, pooled in these ways).
        input_size: Side to which the exported encoder resizes tiles, px.
        real_statistics: Give BatchNorm layers that were folded into constants the statistics of
            the first batch.
        layout: "ctranspath": the network has that encoder's convolutional stem.
    """

    architecture: str = "mobilenetv2_100"
    args: dict[str, Any] = {}
    start: Path | str | None = None
    start_sha256: str | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    embedding: str = "pool"
    input_size: int = 224
    real_statistics: bool = False
    layout: Literal["timm", "ctranspath"] = "timm"


class OptimSettings(_Section):
    """AdamW with a warm-up and a schedule; learning rates are not scaled by the batch.

    Attributes:
        steps: Optimiser steps of the run.
        schedule: "cosine" from the peak to lr_end, or "constant": the peak until a linear cooldown
            to lr_end over the last steps. A run with a constant rate can be lengthened or ended
            early by another `steps` when it is resumed.
        cooldown: The share of the steps that is the cooldown of a constant rate.
        lr: Of the backbone; 0 is a control run, in which only BatchNorm statistics change.
        lr_end: Learning rate at the last step, of backbone and heads.
        head_lr: Learning rate of the heads, at its peak.
        warmup: Steps in which the learning rates rise.
        weight_decay: From, to.
        clip: Gradients are scaled down to this joint norm.
        accumulate: A batch is passed in so many parts, whose gradients are averaged. Contrastive
            losses and BatchNorm then see one part at a time.
        precision: "auto" is bf16 autocast where it is faster (GPUs; CPUs with bf16 instructions
            for networks without grouped convolutions, 1.5 to 1.9 times), else fp32. Set one to
            train equally on every machine.
    """

    steps: int = Field(ge=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    cooldown: float = Field(default=0.1, gt=0, le=1)
    lr: float = Field(default=3e-4, ge=0)
    lr_end: float = Field(default=1e-6, ge=0)
    head_lr: float = Field(default=1e-3, ge=0)
    warmup: int = Field(default=50, ge=0)
    weight_decay: tuple[float, float] = (1e-3, 1e-3)
    clip: float = Field(default=10.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @property
    def cooldown_steps(self) -> int:
        """Steps of the cooldown of a constant rate."""
        return max(1, round(self.cooldown * self.steps))


class RunSettings(_Section):
    """What does not change results: where, how long, how often, on which devices.

    `compile`, `checkpoint_activations` and `parallel` compute the same sums in another order, so
    that the last bits may differ. Compiled networks also draw different random numbers for
    stochastic depth.

    Attributes:
        out: The run's folder: log, checkpoints and the exported encoder. The same folder resumes a
            run.
        minutes: Stop after this time with a checkpoint; the same command resumes.
        fit_steps: Replace optim.steps by as many steps as fit into `minutes`, by the time that the
            first steps take here, and limit the warm-up to a tenth of them. True where minutes is
            given on the command line and steps is not.
        threads: Of torch, in each process.
        loaders: Threads that decode tiles, in each process.
        loader_processes: Processes that decode tiles instead of the threads, for each process; for
            GPUs.
        keep_mb: Memory for decoded tiles in each process (also of loader_processes). It saves
            decoding where the corpus is passed several times.
        checkpoint_every: Steps between checkpoints.
        keep_every: Checkpoints of every so many steps are written and never removed; 0: only the
            newest two are kept.
        log_every: Steps between log lines.
        knn_every: 0: only at the start and the end.
        knn_sets: Folders with a labels.csv; only their train parts are read.
        device: "auto" (a GPU where there is one), or a name of torch: cpu, cuda, cuda:1, mps.
        parallel: With several processes; "fsdp" for ViT-L and larger.
        timeout_minutes: A process that waits longer than this for the others ends with an error;
            null: torch's default, 10 minutes with NCCL and 30 with gloo.
        compile: Compile the blocks by torch.compile.
        checkpoint_activations: Less memory, a third more time.
        bad_batches: So many consecutive batches with a loss or gradient that is not finite stop
            the run.
        tensorboard: Write the figures for TensorBoard as well, in the run's folder.
        wandb: A project of Weights and Biases.
    """

    out: Path
    minutes: float | None = Field(default=None, gt=0)
    fit_steps: bool = False
    threads: int = Field(default=1, ge=1)
    loaders: int = Field(default=1, ge=1)
    loader_processes: int = Field(default=0, ge=0)
    keep_mb: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=100, ge=1)
    keep_every: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1)
    knn_every: int = Field(default=0, ge=0)
    knn_sets: tuple[Path, ...] = ()
    device: str = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    timeout_minutes: float | None = Field(default=None, gt=0)
    compile: bool = False
    checkpoint_activations: bool = False
    bad_batches: int = Field(default=5, ge=1)
    tensorboard: bool = False
    wandb: str | None = None


class ExportSettings(_Section):
    """What is exported, and how the folder describes it.

    Attributes:
        start_share: The share of the starting weights in an average with the trained ones
            (Wortsman et al. 2022, arXiv:2109.01903); 0: the trained weights as they are.
        name: Name of the exported encoder.
        licence: Its licence.
        commercial: Whether the licence permits commercial use.
        summary: A sentence for its description.
        stains: Stain classes that it is meant for.
        mpp: Micrometres per pixel of its input; null: not stated.
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
        seed: Of everything random.
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
            inner[key] = [act(v) for v in value] if isinstance(value, list) else act(value)

    for section, key in (("data", "root"), ("run", "knn_sets"), ("", "start_from")):
        change(section, key, lambda text: _from(folder, str(text)))
    for section, key in (("backbone", "start"), ("method", "teachers")):
        change(section, key, lambda text: _encoder_from(folder, str(text)))


def _from(folder: Path, text: str) -> str:
    joined = folder / Path(text).expanduser()
    plain = Path(os.path.normpath(joined))
    # a folder that is a link has another parent than its name says
    return str(plain if plain.resolve() == joined.resolve() else joined)


def _encoder_from(folder: Path, text: str) -> str:
    """The same for weights or an encoder, which may also be a name."""
    is_path = text.startswith((".", "~")) or text.endswith(".safetensors")
    if not (is_path or (folder / text / "config.json").is_file()):
        return text
    found = _from(folder, text)
    return found if found.startswith(".") or Path(found).is_absolute() else f"./{found}"


def _read(recipe: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
    # of an unknown method nothing else is known
    whole = create_model("Config", __base__=Config, method=(settings or Any, ...))
    try:
        checked = whole.model_validate(values)
    except ValidationError as error:
        found += [_explain(whole, e) for e in error.errors()]
    if found:
        raise ConfigError("; ".join(found))
    _refuse_large_crops(checked.method, checked.data.canvas)
    return Config.model_construct(**{name: getattr(checked, name) for name in whole.model_fields})


def _method_named(values: dict[str, Any]) -> str:
    method = values.get("method")
    if not isinstance(method, dict) or "name" not in method:
        raise ConfigError(f"method.name is missing: one of {', '.join(methods.names())}")
    return str(method["name"])


def _refuse_large_crops(method: MethodSettings, canvas: int) -> None:
    """A crop is cut from the canvas, so it may not be larger."""
    for name, px in method.crop_sizes().items():
        if px > canvas:
            raise ConfigError(
                f"method.{name}: crops of {px} px do not fit data.canvas={canvas}. Lower the former"
                " or raise the latter"
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

    That is all but `run`, `export`, how the embedding is read, and how the start is checked.
    """
    kept = {k: v for k, v in values.items() if k not in ("run", "export")}
    if "backbone" not in kept:
        return kept
    network = {k: v for k, v in kept["backbone"].items() if k not in ("embedding", "start_sha256")}
    return {**kept, "backbone": network}


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Result-changing settings of an older checkpoint, completed by today's defaults.

    Settings that today's config refuses are returned unchanged.
    """
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
    except yaml.YAMLError:
        raise ConfigError(f"{item!r}: the value is not readable as YAML") from None
    if key == "backbone.start":
        values.pop("start_sha256", None)  # it was that of the recipe's start
    return key


def _explain(model: type[BaseModel], error: Any) -> str:
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] == "missing":
        return f"{path} is missing: give {path}={_MISSING.get(path, 'VALUE')}"
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']} (found {error.get('input')!r})"
    section: Any = model
    for part in error["loc"][:-1]:
        section = _settings_in(section.model_fields[part].annotation)
    near = difflib.get_close_matches(str(error["loc"][-1]), section.model_fields, n=1, cutoff=0.4)
    return f"{path}: no such setting" + (
        f"; nearest: {near[0]}" if near else f"; one of {sorted(section.model_fields)}"
    )


def _settings_in(annotation: Any) -> Any:
    """The settings class of an annotation, also of `Settings | None`."""
    kinds = [k for k in (annotation, *get_args(annotation)) if hasattr(k, "model_fields")]
    return kinds[0]
