"""Prepare a run: its folder, tiles, network, method, optimiser and state."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # its types are a separate package
from torch import nn

from pathencoder.errors import ConfigError
from training import config, distributed, methods
from training.backbones import make
from training.data.sampler import Sampler
from training.data.tiles import Corpus
from training.files import write_text
from training.from_config import corpus_of, sampler_of, starting_network
from training.monitor.log import Monitor
from training.monitor.trackers import TensorBoard, Tracker, WandB
from training.provenance import changes, record, saved_steps
from training.provenance.record import Provenance
from training.trainer import checkpoint, checks, lock, parallel, preflight, sharding
from training.trainer.changes import accepted
from training.trainer.optimizer import make_optimizer
from training.trainer.parts import Parts
from training.trainer.run import Run
from training.trainer.signals import StopRequest

log = logging.getLogger("training")


@contextmanager
def opened(cfg: config.Config, request: StopRequest) -> Iterator[Run]:
    """Open a run at its newest checkpoint, or at its start.

    The run's folder is locked while the block runs.

    Args:
        cfg: The settings.
        request: Whether the run was asked to stop.

    Yields:
        The run.

    Raises:
        ConfigError: The settings do not match the tiles, the network, the number of processes or
            the checkpoint, or another process uses the folder.
        IncompatibleWeights: The weights to start from do not match the network.
        MissingExtra: A tracker's package is not installed.
    """
    first = distributed.rank() == 0
    checks.refuse(cfg)
    cfg = cfg.model_copy(update={"backbone": make.with_start(cfg.backbone)})
    with lock.held(cfg.run.out) if first else nullcontext():
        parts, first_step = _prepare(cfg, request)
        run = Run(parts, first_step=first_step)
        try:
            yield run
        finally:
            run.close()
            parts.monitor.close()


def _prepare(cfg: config.Config, request: StopRequest) -> tuple[Parts, int]:
    """The parts of a run and the first step to do."""
    torch.set_num_threads(cfg.run.threads)
    device = distributed.device_of(cfg.run.device)
    corpus = corpus_of(cfg)
    preflight.check(cfg, corpus)
    sampler = sampler_of(cfg, corpus)
    torch.manual_seed(cfg.seed)
    plan, method = _built(cfg, corpus, sampler, device)
    forward, dtype = _wrapped(cfg, method, device)
    if distributed.rank() == 0:
        checks.warn_of_small_disk(cfg.run.out, method)
    optimizer = make_optimizer(method, cfg)
    settings = config.settings_of_run(cfg, half=dtype is not None)
    first_step = _restore(cfg, method, optimizer, settings)
    made_from = record.of_run(cfg, corpus, device=device, dtype=dtype)
    made_from = _resumed(cfg, made_from, first_step, settings)
    parts = Parts(
        cfg=cfg,
        corpus=corpus,
        sampler=sampler,
        plan=plan,
        method=method,
        forward=forward,
        optimizer=optimizer,
        device=device,
        dtype=dtype,
        monitor=_monitor(cfg, made_from, first_step),
        provenance=made_from,
        request=request,
    )
    _log_start(parts, first_step)
    return parts, first_step


def _monitor(cfg: config.Config, made_from: Provenance, first_step: int) -> Monitor:
    """The log of this process; the first process also describes the run in its folder."""
    if distributed.rank() != 0:
        return Monitor(None)
    _write_identity(cfg, made_from, cfg.run.out)
    return Monitor(cfg.run.out, _trackers(cfg, first_step))


def _log_start(parts: Parts, first_step: int) -> None:
    world, device = distributed.world(), parts.device
    log.info(
        "%d tiles of %d slides; %s, steps %d to %d; %s, %s",
        len(parts.corpus),
        len(parts.corpus.slide_names),
        parts.cfg.method.name,
        first_step,
        parts.cfg.optim.steps,
        f"{world} processes on {device.type}" if world > 1 else device,
        str(parts.dtype or torch.float32).removeprefix("torch."),
    )


def _dtype(cfg: config.Config, device: torch.device, backbone: nn.Module) -> torch.dtype | None:
    """The dtype of autocast: bf16 if it is requested, or is faster and safe; else None.

    Raises ConfigError if it is requested and not safe.
    """
    requested = cfg.optim.precision == "bf16"
    auto = cfg.optim.precision == "auto"
    if not (requested or (auto and parallel.gains_from_bf16(backbone, device))):
        return None
    unsafe = preflight.unsafe_in_bf16(cfg) if device.type == "cpu" else None
    if unsafe and requested:
        raise ConfigError(
            f"optim.precision=bf16: on CPUs the gradient of {unsafe} would be wrong. Make those"
            " crops larger, or use fp32"
        )
    return None if unsafe else torch.bfloat16


def _built(
    cfg: config.Config, corpus: Corpus, sampler: Sampler, device: torch.device
) -> tuple[methods.Plan, methods.Method]:
    """The plan and the method, on the device unless its weights are to be sharded."""
    sharded = sharding.applies(cfg.run.parallel)
    if sharded and distributed.rank() != 0:  # its weights come from process 0
        random = cfg.backbone.model_copy(update={"start": None, "real_statistics": False})
        cfg = cfg.model_copy(update={"backbone": random})

    def build() -> tuple[methods.Plan, methods.Method]:
        plan = _plan(cfg, corpus, sampler, torch.Generator(device))
        return plan, methods.build(cfg.method, plan).train()

    plan, method = sharding.built(build) if sharded else build()
    return plan, method if sharded else method.to(device)


def _wrapped(
    cfg: config.Config, method: methods.Method, device: torch.device
) -> tuple[nn.Module, torch.dtype | None]:
    """The method's loss over all processes, and the dtype of autocast."""
    dtype = _dtype(cfg, device, method.backbone)
    if cfg.run.checkpoint_activations:
        parallel.checkpoint_blocks(method.backbone)
    if cfg.run.compile:
        for network in [m for m in method.modules() if hasattr(m, "forward_features")]:
            parallel.compile_blocks(network)
    run = cfg.run
    forward = parallel.wrap(method, device, strategy=run.parallel, shard=run.shard, dtype=dtype)
    return forward, dtype


def _plan(
    cfg: config.Config, corpus: Corpus, sampler: Sampler, generator: torch.Generator
) -> methods.Plan:
    start = starting_network(cfg, corpus, sampler)
    state = start.state_dict()

    def backbone() -> nn.Module:
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None}))
        network.load_state_dict(state)
        return network

    return methods.Plan(
        backbone=backbone,
        width=make.output_width(start),
        steps=cfg.optim.steps,
        batch=cfg.data.batch,
        tiles=_tiles_at_start(cfg, corpus),
        mean=cfg.backbone.mean,
        std=cfg.backbone.std,
        generator=generator,
        spec=functools.partial(make.spec_of, cfg.backbone, cfg.export),
    )


def _tiles_at_start(cfg: config.Config, corpus: Corpus) -> int:
    """The number of tiles that the run began with: sizes of heads that depend on it stay.

    Every checkpoint of the run says it; damaged ones are passed over.
    """
    for found in saved_steps.newest_first(cfg.run.out):
        with suppress(OSError, ValueError):
            if known := json.loads((found / "run.json").read_text()).get("provenance"):
                return Provenance.from_json(known).tiles_at_start
    return len(corpus)


def _resumed(
    cfg: config.Config, now: Provenance, first_step: int, settings: dict[str, Any]
) -> Provenance:
    """The record of the run; raises ConfigError where it resumes on other tiles."""
    used = saved_steps.path_of(cfg.run.out, first_step)
    if not used.is_dir():
        return now
    before = json.loads((used / "run.json").read_text())["settings"]
    changed = accepted(before, settings)
    for words in changed:
        log.warning("from step %d on %s", first_step, words)
    now = changes.resumed(used, now, allowed=cfg.run.accept_changed_tiles)
    return now.with_changed(first_step, changed)


def _restore(
    cfg: config.Config,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> int:
    """Load the newest checkpoint or the state to start from; returns the first step to do."""
    step = checkpoint.resume(cfg.run.out, method, optimizer, settings)
    if step is not None:
        return step
    if cfg.start_from:
        checkpoint.start_from(cfg.start_from, method, optimizer, settings)
    return 0


def _trackers(cfg: config.Config, first_step: int) -> list[Tracker]:
    made: list[Tracker] = []
    if cfg.run.tensorboard:
        made.append(TensorBoard(cfg.run.out, first_step=first_step))
    if cfg.run.wandb:
        made.append(WandB(cfg.run.out, cfg.run.wandb, config.dump(cfg)))
    return made


def _write_identity(cfg: config.Config, made_from: Provenance, folder: Path) -> None:
    """Write config.yaml and data.json, which describe the run."""
    write_text(folder / "config.yaml", yaml.safe_dump(config.dump(cfg), sort_keys=False))
    write_text(folder / "data.json", json.dumps(made_from.to_json(), indent=1))
