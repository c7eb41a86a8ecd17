"""The settings of a run: one data class for each section of a recipe."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, model_validator

from pathencoder.pooling import POOLS, stage_rule
from pathencoder.remote.objects import UrlPath, is_remote
from pathencoder.spec import EMBEDDINGS, STAINS
from training import bounds
from training.archive.pack.settings import MPP, positions_folder
from training.augment import StainClass
from training.bounds import (
    Count,
    EncoderName,
    Fraction,
    Mpp,
    Name,
    Place,
    Rate,
    Section,
    Share,
    Weight,
)
from training.methods import MethodSettings

RUN_OF_REMOTE = 8  # neighbouring tiles in a request to an object store
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _embedding(rule: str) -> str:
    if rule not in EMBEDDINGS and stage_rule(rule) is None:
        raise ValueError(
            f"one of {', '.join(EMBEDDINGS)}, or stages:a,b with /{','.join(POOLS)} or some of them"
        )
    return rule


def _numbers(args: dict[str, Any]) -> dict[str, Any]:
    """YAML reads 1e-5 as text, and only 1.0e-5 as a number."""
    return {
        k: float(v) if isinstance(v, str) and _NUMBER.fullmatch(v) else v for k, v in args.items()
    }


def _device(name: str) -> str:
    if name != "auto":
        try:
            torch.device(name)
        except RuntimeError:
            raise ValueError("auto, cpu, cuda, cuda:1 or mps is expected") from None
    return name


def _root(path: Path) -> Path:
    return UrlPath(path) if is_remote(path) else path


_Stain = Annotated[str, AfterValidator(functools.partial(bounds.one_of, known=STAINS))]


class DataSettings(Section):
    """Which tiles, and how often.

    Attributes:
        root: Folder of the tiles: images in any subfolder, or tar shards with a manifest.csv or
            slides.csv or without. Or a URL of tar shards: s3://, gs://, az://, https://. Without
            it, `slides` alone are read.
        slides: The manifest of an archive (NAME.parquet): its slides that `root` does not hold are
            read as they are needed. Tiles have `canvas` pixels at `mpp` (0.5 where that is null);
            where they lie is found once, and kept beside the manifest.
        licences: Classes (P, N) or licences of a manifest that are read; empty: all.
        stains: The same for stain classes.
        without: Sources of a manifest that are left out.
        share: Only this share of its patients (of its slides, where it names no patients), chosen
            by a hash: larger shares hold smaller ones.
        stain: The stain class of tiles for which no table states one; null: "unknown", whose
            colours are changed as those of IHC are.
        canvas: Tiles are resized to this side before crops are taken, px.
        mpp: Micrometres per pixel of the canvas: of a tile whose scale a table states, the central
            canvas * mpp micrometres are used, so that crops have the same field of view whatever
            the scale of their tile. null: the central square of every tile is used.
        batch: Over all processes.
        slide_power: 1 draws slides by their number of tiles, 0 all equally often
            (training/data/sampler.py).
        organ_power: The same for organs.
        stain_power: The same for stains.
        stain_weights: How many times as often a stain class is drawn.
        window: Shards from which tiles are drawn at a time (training/data/window.py); 0: all. None:
            all, or 2,048 of a corpus of more than 4,096 shards, which cannot all stay open.
        run: Neighbouring tiles of a slide that a place in the batch takes in successive steps, so
            that one request to an object store fetches them (training/data/sampler.py). null: 8
            where `root` is a URL, else 1.
    """

    root: Annotated[Place, AfterValidator(_root)]
    slides: Place | None = None
    licences: tuple[str, ...] = ()
    stains: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    share: Share = 1.0
    stain: StainClass | None = None
    canvas: int = Field(default=224, ge=32, le=4096)
    mpp: Mpp | None = None
    batch: int = Field(default=64, ge=2, le=1_000_000)
    slide_power: Fraction = 0.5
    organ_power: Fraction = 1.0
    stain_power: Fraction = 1.0
    stain_weights: dict[StainClass, Weight] = Field(default_factory=dict)
    window: Count | None = None
    run: int = Field(default=1, ge=1, le=64)

    @model_validator(mode="before")
    @classmethod
    def _runs_of_tiles(cls, given: Any) -> Any:
        """Without `run`, that of the place of the tiles; it is recorded as a number."""
        if not isinstance(given, dict) or given.get("run") is not None:
            return given
        root = given.get("root")
        far = isinstance(root, str | Path) and is_remote(root)
        return {**given, "run": RUN_OF_REMOTE if far else 1}

    @model_validator(mode="before")
    @classmethod
    def _slides_alone(cls, given: Any) -> Any:
        """Without `root`, the tiles are those of `slides`."""
        if not isinstance(given, dict) or given.get("root") or not given.get("slides"):
            return given
        mpp, canvas = given.get("mpp") or MPP, given.get("canvas") or 224
        return {**given, "root": positions_folder(Path(str(given["slides"])), canvas, mpp)}


class BackboneSettings(Section):
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
        embedding: How the exported encoder's embedding is read: pool, head, cls, mean, cls_mean,
            or stages:a,b/mean,centre,max (inner stages of a CNN, pooled in these ways).
        input_size: Side to which the exported encoder resizes tiles, px.
        interpolation: How it resizes them.
        resize: "squash": whole, to a square; "shortest": by their shortest side to `resize_size`,
            then cropped.
        resize_size: With "shortest", px; null: `input_size`.
        real_statistics: Give BatchNorm layers that were folded into constants the statistics of
            the first batch.
        layout: "ctranspath": the network has that encoder's convolutional stem; "keep": that one's
            projection.
    """

    architecture: str = Field(default="mobilenetv2_100", pattern=r"^\w[\w.-]*$")
    args: Annotated[dict[str, Any], AfterValidator(_numbers)] = Field(default_factory=dict)
    start: EncoderName | None = None
    start_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    mean: tuple[Fraction, Fraction, Fraction] = (0.5, 0.5, 0.5)
    std: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    embedding: Annotated[str, AfterValidator(_embedding)] = "pool"
    input_size: int = Field(default=224, ge=16, le=4096)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize: Literal["squash", "shortest"] = "squash"
    resize_size: int | None = Field(default=None, ge=16, le=4096)
    real_statistics: bool = False
    layout: Literal["timm", "ctranspath", "keep"] = "timm"


class OptimSettings(Section):
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

    steps: int = Field(ge=1, le=10**9)
    schedule: Literal["cosine", "constant"] = "cosine"
    cooldown: Share = 0.1
    lr: Rate = 3e-4
    lr_end: Rate = 1e-6
    head_lr: Rate = 1e-3
    warmup: Count = 50
    weight_decay: tuple[Rate, Rate] = (1e-3, 1e-3)
    clip: float = Field(default=10.0, gt=0, le=1e9)
    accumulate: int = Field(default=1, ge=1, le=10_000)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @property
    def cooldown_steps(self) -> int:
        """Steps of the cooldown of a constant rate."""
        return max(1, round(self.cooldown * self.steps))


class RunSettings(Section):
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
        cache_mb: Space on the local disk for tiles of a `data.root` in an object store, in MB.
        checkpoint_every: Steps between checkpoints.
        keep_every: Checkpoints of every so many steps are written and never removed; 0: only the
            newest two are kept.
        save_in_background: Copy a checkpoint to memory and write it while the run goes on; null:
            with sharded weights.
        log_every: Steps between log lines.
        knn_every: 0: only at the start and the end.
        knn_sets: Folders with a labels.csv; only their train parts are read.
        device: "auto" (a GPU where there is one), or a name of torch: cpu, cuda, cuda:1, mps.
        parallel: With several processes; "fsdp" for ViT-L and larger.
        shard: With "fsdp": weights are divided among all processes, or ("node") among those of
            each node, which then hold a copy each. Faster between nodes, more memory.
        timeout_minutes: A process that waits longer than this for the others ends with an error;
            null: torch's default, 10 minutes with NCCL and 30 with gloo.
        compile: Compile the blocks by torch.compile.
        checkpoint_activations: Less memory, a third more time.
        bad_batches: So many consecutive batches with a loss or gradient that is not finite stop
            the run.
        accept_changed_tiles: Resume also on other tiles than before; the change is recorded.
        tensorboard: Write the figures for TensorBoard as well, in the run's folder.
        wandb: A project of Weights and Biases.
    """

    out: Place
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    fit_steps: bool = False
    threads: int = Field(default=1, ge=1, le=1024)
    loaders: int = Field(default=1, ge=1, le=1024)
    loader_processes: int = Field(default=0, ge=0, le=1024)
    keep_mb: int = Field(default=0, ge=0, le=10_000_000)
    cache_mb: int = Field(default=0, ge=0, le=1_000_000_000)
    checkpoint_every: int = Field(default=100, ge=1, le=10**9)
    keep_every: Count = 0
    save_in_background: bool | None = None
    log_every: int = Field(default=10, ge=1, le=10**9)
    knn_every: Count = 0
    knn_sets: tuple[Place, ...] = ()
    device: Annotated[str, AfterValidator(_device)] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    shard: Literal["all", "node"] = "all"
    timeout_minutes: float | None = Field(default=None, gt=0, le=1e6)
    compile: bool = False
    checkpoint_activations: bool = False
    bad_batches: int = Field(default=5, ge=1, le=10**6)
    accept_changed_tiles: bool = False
    tensorboard: bool = False
    wandb: Name | None = None


class ExportSettings(Section):
    """What is exported, and how the folder describes it.

    Attributes:
        start_share: The share of the starting weights in an average with the trained ones
            (Wortsman et al. 2022, arXiv:2109.01903); 0: the trained weights as they are.
        name: Name of the exported encoder.
        licence: Of tiles and weights whose licence is not known; the export has the strictest.
        commercial: false: no commercial use, also where the licence permits it.
        summary: A sentence for its description.
        stains: Stain classes of the tiles, where no table states them.
        mpp: Micrometres per pixel of its input; null: `data.mpp`, else as a table of the tiles
            states.
    """

    start_share: float = Field(default=0.0, ge=0, lt=1)
    name: Name = "encoder"
    licence: Name = "unknown"
    commercial: bool | None = None
    summary: str = ""
    stains: tuple[_Stain, ...] = ("he",)
    mpp: Mpp | None = None


class Config(Section):
    """A whole config.

    Attributes:
        seed: Of everything random.
        start_from: A run or checkpoint whose method, heads and optimiser this run starts with, at
            its own step 0.
        method: The `Settings` of the method's file.
    """

    seed: int = Field(default=0, ge=0, le=10**9)
    start_from: Place | None = None
    data: DataSettings
    backbone: BackboneSettings = BackboneSettings()
    optim: OptimSettings
    run: RunSettings
    export: ExportSettings = ExportSettings()
    method: MethodSettings

    @model_validator(mode="after")
    def _one_start(self) -> Config:
        if self.start_from and self.export.start_share:
            raise ValueError(
                "export.start_share averages with the weights of backbone.start, and start_from"
                " replaces them: leave one of the two out"
            )
        return self
