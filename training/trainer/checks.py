"""What can be checked before a run: its settings against the data and this machine."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.pretrained import locate
from pathencoder.remote.objects import is_remote
from training import distributed, methods
from training.backbones import make
from training.config import Config
from training.data.tiles import Corpus
from training.from_config import corpus_of, sampler_of
from training.monitor.knn import label_rows
from training.provenance import saved_steps
from training.trainer import preflight, sharding

log = logging.getLogger("training")

_COPIES = 3  # checkpoints on the disk: the newest two, and the one that is being written
_MB = 1e6
_MANY_TILES = 1_000_000  # where the corpus cannot be opened


@dataclass(frozen=True)
class Report:
    """What `examine` found.

    Attributes:
        found: What is in order, a line each.
        problems: What is not: what is wrong, and what to do.
    """

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def examine(cfg: Config) -> Report:
    """Check a config as a run of it would, without training. Nothing is written.

    Args:
        cfg: The settings.

    Returns:
        What was found; every problem, not only the first one.
    """
    report, tiles = _without_tiles(cfg), _MANY_TILES
    with _noting(report):
        corpus = _corpus(cfg)
        tiles = len(corpus)
        report.found.append(f"tiles: {_described(corpus)}")
    with _noting(report):
        report.found.append(_output(cfg, tiles))
    return report


def refuse(cfg: Config) -> None:
    """Check what needs no tiles: for the start of a run.

    Raises:
        ConfigError: Something is wrong; the message has every problem.
    """
    if problems := _without_tiles(cfg).problems:
        raise ConfigError("; ".join(problems))


def _without_tiles(cfg: Config) -> Report:
    report = Report()
    checks: list[Callable[[], str]] = [
        functools.partial(act, cfg) for act in (_batch, _device, _weights, _trackers, _network)
    ]
    checks += [functools.partial(_teacher, name) for name in cfg.method.teacher_encoders()]
    checks += [functools.partial(_knn_set, f) for f in preflight.knn_sets_there(cfg)]
    checks += [functools.partial(act, cfg) for act in (_continued, _root, _folder)]
    _warn_of_absent_sets(cfg)
    for check in checks:
        with _noting(report):
            report.found.append(check())
    return report


@contextlib.contextmanager
def _noting(report: Report) -> Iterator[None]:
    """An error inside the block is a problem of the report."""
    try:
        yield
    # timm and torch raise the others for names, arguments and sizes that they do not take
    except (PathEncoderError, OSError, RuntimeError, ValueError, TypeError, AssertionError) as e:
        text = str(e).partition("\n")[0] or type(e).__name__
        if text not in report.problems:
            report.problems.append(text)


def _batch(cfg: Config) -> str:
    """Raise ConfigError for a batch that cannot be divided evenly."""
    world, parts = distributed.world(), cfg.optim.accumulate
    if cfg.data.batch % (world * parts):
        raise ConfigError(
            f"data.batch={cfg.data.batch} cannot be divided evenly for {world} processes and"
            f" optim.accumulate={parts}: choose a multiple of {world * parts}"
        )
    if cfg.data.batch // (world * parts) < 2:
        raise ConfigError(
            f"data.batch={cfg.data.batch} leaves less than 2 tiles for a forward pass ({world}"
            f" processes, {parts} parts): choose at least {2 * world * parts}"
        )
    if parts > 1 and cfg.method.compares_tiles:
        log.warning(
            "optim.accumulate=%d: %s compares the %d tiles of one part, not the whole batch",
            parts,
            cfg.method.name,
            cfg.data.batch // parts,
        )
    return f"batch: {cfg.data.batch} tiles on {world} processes, in {parts} parts"


def _device(cfg: Config) -> str:
    device = distributed.device_of(cfg.run.device)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(f"run.device={cfg.run.device}: not usable here ({reason})") from None
    return f"device: {device}"


def _weights(cfg: Config) -> str:
    """Raise ConfigError for weights that cannot be sharded as the config asks."""
    if cfg.run.parallel == "fsdp" and cfg.method.own_network:
        raise ConfigError(
            f"run.parallel=fsdp: the network of {cfg.method.name} is small and is not sharded: use"
            " run.parallel=ddp"
        )
    if not sharding.applies(cfg.run.parallel):
        return "weights: whole in each process"
    copies = sharding.nodes(cfg.run.shard)
    return f"weights: {copies} x, sharded over {distributed.world() // copies} processes"


def _trackers(cfg: Config) -> str:
    wanted = {"tensorboard": cfg.run.tensorboard, "wandb": cfg.run.wandb is not None}
    for package, asked in wanted.items():
        if asked and importlib.util.find_spec(package) is None:
            raise RuntimeError(
                f"run.{package}: the package is not installed: pip install 'pathencoder[trackers]'"
            )
    return f"trackers: {', '.join(name for name, asked in wanted.items() if asked) or 'none'}"


def _teacher(name: Path | str) -> str:
    return f"teacher: {locate.describe(str(name)).name}"


def _knn_set(folder: Path) -> str:
    rows = label_rows(folder)
    return f"k-NN set {folder}: {len(rows)} images, {len({row.label for row in rows})} classes"


def _continued(cfg: Config) -> str:
    """The run that this one starts with."""
    place = cfg.start_from
    if place and not any((place / name).exists() for name in ("run.json", "checkpoints")):
        raise ConfigError(
            f"start_from {str(place)!r} is neither a run with a checkpoint nor a checkpoint: give"
            " the folder of one"
        )
    return f"start_from: {place or 'none'}"


def _root(cfg: Config) -> str:
    if not is_remote(cfg.data.root) and not cfg.data.root.is_dir():
        raise ConfigError(f"data.root {str(cfg.data.root)!r} is not a folder")
    return f"data.root: {cfg.data.root}"


def _warn_of_absent_sets(cfg: Config) -> None:
    there = preflight.knn_sets_there(cfg)
    if absent := [str(folder) for folder in cfg.run.knn_sets if folder not in there]:
        log.warning(
            "run.knn_sets: no labels.csv in %s: k-NN accuracy is not measured on %s. Give folders"
            " with a labels.csv, or run.knn_sets=[]",
            ", ".join(absent),
            "them" if len(absent) > 1 else "it",
        )


def _folder(cfg: Config) -> str:
    """Raise OSError for an output folder that cannot be written to."""
    out = cfg.run.out
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OSError(f"run.out={out}: {there} is not a folder that can be written to")
    return f"folder of the run: {there} can be written to"


def _corpus(cfg: Config) -> Corpus:
    corpus = corpus_of(cfg)
    sampler_of(cfg, corpus)
    preflight.check(cfg.model_copy(update={"backbone": make.with_start(cfg.backbone)}), corpus)
    return corpus


def _described(corpus: Corpus) -> str:
    stains = ", ".join(f"{n} {name}" for name, n in corpus.stain_counts().items())
    return f"{len(corpus)} of {len(corpus.slide_names)} slides ({stains})"


def _network(cfg: Config) -> str:
    """The network and its embedding rule."""
    if cfg.method.own_network:
        return f"network: that of {cfg.method.name}"
    backbone = make.with_start(cfg.backbone)
    spec = make.spec_of(backbone, cfg.export)
    return (
        f"network: {spec.architecture}, {(spec.parameters or 0) / 1e6:.1f} million parameters;"
        f" embedding {spec.embedding}, {spec.dim} values"
    )


def _output(cfg: Config, tiles: int) -> str:
    """Space for checkpoints, and the newest checkpoint if any."""
    out = cfg.run.out
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    needed, free = _COPIES * checkpoint_bytes(cfg, tiles), shutil.disk_usage(there).free
    if free < needed:
        raise OSError(_too_little_space(out, needed, free))
    newest = saved_steps.latest(out)
    state = f"resumes from {newest.name}" if newest else "a new run"
    space = f"checkpoints need {needed / _MB:.0f} MB of {free / _MB:.0f} MB that are free"
    return f"out: {out}, {state}; {space}"


def warn_of_small_disk(out: Path, method: torch.nn.Module) -> None:
    """Log a warning at the start of a run whose checkpoints will not fit."""
    needed, free = _COPIES * sum(_bytes(method)), shutil.disk_usage(out).free
    if free < needed:
        log.warning("%s", _too_little_space(out, needed, free))


def _too_little_space(out: Path, needed: int, free: int) -> str:
    return (
        f"run.out={out}: {free / _MB:.0f} MB are free, and checkpoints need {needed / _MB:.0f} MB."
        " Free some space, or choose another out="
    )


def checkpoint_bytes(cfg: Config, tiles: int) -> int:
    """Size of a checkpoint: the method's weights, and two moments of each trainable parameter.

    Args:
        cfg: The settings.
        tiles: Of the corpus, by which some methods choose their size.

    Returns:
        Bytes.
    """
    plain = make.with_start(cfg.backbone).model_copy(update={"start": None})
    with torch.device("meta"):
        plan = methods.Plan(
            backbone=lambda: make.make_backbone(plain),
            width=make.output_width(make.make_backbone(plain)),
            steps=cfg.optim.steps,
            batch=cfg.data.batch,
            tiles=tiles,
            mean=plain.mean,
            std=plain.std,
            generator=torch.Generator("cpu"),
            spec=lambda: make.spec_of(plain, cfg.export),
        )
        method = methods.build(cfg.method, plan)
    return sum(_bytes(method))


def _bytes(method: torch.nn.Module) -> Iterator[int]:
    yield from (t.numel() * t.element_size() for t in method.state_dict().values())
    yield from (2 * p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
