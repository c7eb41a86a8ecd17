"""Everything that must be right before the first step.

settings, tiles, network, method, optimiser, the run's folder.
"""

from __future__ import annotations

import functools
import json
import logging
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import yaml
from torch import nn

from pathencoder.errors import ConfigError
from training import config, distributed, methods
from training.backbones import make
from training.data.corpus import Corpus
from training.data.open_corpus import open_corpus
from training.data.sampler import Sampler
from training.files import write_text
from training.from_config import sampler_of, starting_network
from training.monitor.alarms import Alarms
from training.monitor.log import FirstFeatures, Monitor
from training.monitor.trackers import TensorBoard, Tracker, WandB
from training.trainer import checkpoint, lock, parallel, preflight
from training.trainer.guard import Guard
from training.trainer.optimizer import make_optimizer
from training.trainer.run import Run
from training.trainer.signals import StopRequest
from training.trainer.throughput import Pace

log = logging.getLogger("training")


@contextmanager
def opened(cfg: config.Config, request: StopRequest) -> Iterator[Run]:
    """The run of a config, at its newest checkpoint.

    Its folder is this process's alone while it is open.
    """
    first = distributed.rank() == 0
    cfg = cfg.model_copy(update={"backbone": make.with_start(cfg.backbone)})
    with lock.held(cfg.run.out) if first else nullcontext():
        run = _prepare(cfg, request)
        try:
            yield run
        finally:
            run.monitor.close()


def _prepare(cfg: config.Config, request: StopRequest) -> Run:
    torch.set_num_threads(cfg.run.threads)
    at_once = _tiles_at_once(cfg)
    device = distributed.device_of(cfg.run.device)
    d = cfg.data
    corpus = open_corpus(d.root, licences=d.licences, stains=d.stains, without=d.without)
    preflight.check(cfg, corpus)
    sampler = sampler_of(cfg, corpus)
    torch.manual_seed(cfg.seed)
    plan = _plan(cfg, corpus, sampler, torch.Generator(device))
    method, forward, dtype = _method(cfg, plan, device)
    optimizer = make_optimizer(method, cfg)
    step = _restore(cfg, method, optimizer)
    first = distributed.rank() == 0
    if first:
        _write_identity(cfg, corpus, cfg.run.out)
    monitor = Monitor(cfg.run.out if first else None, _trackers(cfg) if first else [])
    where = (
        f"{distributed.world()} processes on {device.type}"
        if distributed.world() > 1
        else str(device)
    )
    facts = (
        len(corpus),
        len(corpus.slide_names),
        cfg.method.name,
        step,
        cfg.optim.steps,
        where,
        str(dtype or torch.float32)[6:],
    )
    log.info("%d tiles of %d slides; %s, steps %d to %d; %s, %s", *facts)
    return Run(
        cfg,
        cfg.run.out,
        corpus,
        sampler,
        method,
        forward,
        [p for p in method.parameters() if p.requires_grad],
        optimizer,
        monitor,
        Guard(method, cfg.run.out, in_a_row=cfg.run.bad_batches),
        Alarms(chance=cfg.method.chance_loss(at_once)),
        FirstFeatures(method.backbone),
        Pace(d.batch),
        request,
        device,
        dtype,
        plan,
        step,
    )


def _tiles_at_once(cfg: config.Config) -> int:
    """Tiles that go through together, over all processes.

    Raises ConfigError for a batch that cannot be shared out evenly.
    """
    world, parts = distributed.world(), cfg.optim.accumulate
    if cfg.data.batch % (world * parts):
        raise ConfigError(
            f"data.batch={cfg.data.batch} cannot be cut evenly for {world} processes and"
            f" optim.accumulate={parts}"
        )
    if cfg.data.batch // (world * parts) < 2:
        raise ConfigError(
            f"data.batch={cfg.data.batch} leaves a process less than 2 tiles at once ({world}"
            f" processes, {parts} parts)"
        )
    if parts > 1 and cfg.method.compares_tiles:
        log.warning(
            "optim.accumulate=%d: %s compares the %d tiles of one part, not the whole batch",
            parts,
            cfg.method.name,
            cfg.data.batch // parts,
        )
    return cfg.data.batch // parts


def _dtype(cfg: config.Config, device: torch.device, backbone: nn.Module) -> torch.dtype | None:
    """bf16 where it is asked for, or gains and is safe.

    Raises ConfigError where it is asked for and not safe.
    """
    asked = cfg.optim.precision == "bf16"
    if not (
        asked or (cfg.optim.precision == "auto" and parallel.gains_from_bf16(backbone, device))
    ):
        return None
    unsafe = preflight.unsafe_in_bf16(cfg) if device.type == "cpu" else None
    if unsafe and asked:
        raise ConfigError(
            f"optim.precision=bf16: on CPUs the gradient of {unsafe} would be wrong. Make those"
            " crops larger, or use fp32"
        )
    return None if unsafe else torch.bfloat16


def _method(
    cfg: config.Config, plan: methods.Plan, device: torch.device
) -> tuple[methods.Method, nn.Module, torch.dtype | None]:
    method = methods.build(cfg.method, plan).to(device).train()
    dtype = _dtype(cfg, device, method.backbone)
    if cfg.run.checkpoint_activations:
        parallel.checkpoint_blocks(method.backbone)
    if cfg.run.compile:
        for network in [m for m in method.modules() if hasattr(m, "forward_features")]:
            parallel.compile_blocks(network)
    return method, parallel.wrap(method, device, strategy=cfg.run.parallel, dtype=dtype), dtype


def _plan(
    cfg: config.Config, corpus: Corpus, sampler: Sampler, generator: torch.Generator
) -> methods.Plan:
    start = starting_network(cfg, corpus, sampler)
    state = start.state_dict()

    def backbone() -> nn.Module:
        network = make.make_backbone(cfg.backbone.model_copy(update={"start": None}))
        network.load_state_dict(state)
        return network

    b, width = cfg.backbone, int(start.num_features)  # type: ignore[arg-type]
    width = int(getattr(start, "head_hidden_size", width))
    spec = functools.partial(make.spec_of, b, cfg.export)
    return methods.Plan(
        backbone,
        width,
        cfg.optim.steps,
        cfg.data.batch,
        len(corpus),
        b.mean,
        b.std,
        generator,
        spec,
    )


def _restore(cfg: config.Config, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on with: of the run's own newest checkpoint, or 0 from another run's state or from nothing."""
    settings = config.result_changing(config.dump(cfg))
    newest = checkpoint.latest(cfg.run.out)
    if newest:
        return checkpoint.load(newest, method, optimizer, settings)
    if cfg.start_from:
        checkpoint.start_from(cfg.start_from, method, optimizer, settings)
    return 0


def _trackers(cfg: config.Config) -> list[Tracker]:
    made: list[Tracker] = []
    if cfg.run.tensorboard:
        made.append(TensorBoard(cfg.run.out))
    if cfg.run.wandb:
        made.append(WandB(cfg.run.out, cfg.run.wandb, config.dump(cfg)))
    return made


def _write_identity(cfg: config.Config, corpus: Corpus, folder: Path) -> None:
    """config.yaml and data.json: what the run is, for whoever finds the folder."""
    write_text(folder / "config.yaml", yaml.safe_dump(config.dump(cfg), sort_keys=False))
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    about = {
        "tiles": len(corpus),
        "slides": len(corpus.slide_names),
        "sha256_of_keys": corpus.digest,
        "git_commit": commit or None,
    }
    write_text(folder / "data.json", json.dumps({**about, "torch": torch.__version__}, indent=1))
