"""Export finished runs again, without training: averaged, or with another embedding rule."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import WEIGHTS
from training import config
from training.backbones import make
from training.config import Config
from training.from_config import corpus_of, sampler_of, starting_network
from training.provenance import record
from training.provenance.record import Provenance
from training.trainer import checkpoint
from training.trainer.export import export


def reexport(
    runs: Sequence[Path], folder: Path, *, start_share: float = 0.0, embedding: str | None = None
) -> Path:
    """Export one encoder of several runs.

    Its weights are the plain average of those of the runs, which start from the same weights and
    differ in seed or settings (Wortsman et al. 2022, arXiv:2203.05482), then averaged with the
    first run's starting weights.

    Args:
        runs: Their folders.
        folder: Where to write the encoder.
        start_share: Share of the starting weights.
        embedding: The embedding rule; the first run's own if None.

    Returns:
        `folder`.

    Raises:
        ConfigError: See `configs_of`: from an average with the starting weights, the trained
            weights cannot be recovered.
    """
    configs = configs_of(runs)
    cfg = configs[0]
    network = averaged_network(runs, configs, start_share=start_share)
    backbone = cfg.backbone.model_copy(update={"embedding": embedding or cfg.backbone.embedding})
    exported = cfg.export.model_copy(update={"start_share": start_share})
    cfg = cfg.model_copy(update={"backbone": backbone, "export": exported})
    return export(cfg, network, record_of_all(runs, configs), folder, steps=[*map(steps_of, runs)])


def configs_of(runs: Sequence[Path]) -> list[Config]:
    """The settings of runs that can be averaged.

    Args:
        runs: Their folders.

    Returns:
        The settings of each.

    Raises:
        ConfigError: A run has no settings or no export, or its export is an average with its
            starting weights already.
    """
    configs = [config.load(run / "config.yaml") for run in runs]
    for run, cfg in zip(runs, configs, strict=True):
        if cfg.export.start_share:
            raise ConfigError(
                f"the export of {run} is an average with its starting weights: train it again with"
                " export.start_share=0"
            )
        if not (run / "export" / WEIGHTS).is_file():
            raise ConfigError(
                f"{run} has no export: python -m training.export {run}. An average is made of the"
                " exports of its runs"
            )
    return configs


def averaged_network(
    runs: Sequence[Path], configs: Sequence[Config], *, start_share: float = 0.0
) -> nn.Module:
    """The plain average of the exported weights of runs, in fp32.

    Args:
        runs: Their folders.
        configs: Of `configs_of`.
        start_share: Share of the first run's starting weights.
    """
    cfg = configs[0]
    network = trained_network(runs[0], cfg)
    for done, run in enumerate(runs[1:], 1):
        network = make.averaged(network, trained_network(run, cfg), 1 / (done + 1))
    if start_share:
        corpus = corpus_of(cfg)
        start = starting_network(cfg, corpus, sampler_of(cfg, corpus))
        network = make.averaged(network, start, start_share)
    return network


def record_of_all(runs: Sequence[Path], configs: Sequence[Config]) -> Provenance:
    """The first run's record, with the strictest licence of all runs."""
    first, *others = (record_of(run, cfg) for run, cfg in zip(runs, configs, strict=True))
    for other in others:
        first = first.averaged_with(other)
    return first


def record_of(run: Path, cfg: Config) -> Provenance:
    """The record of a run; of older runs, which have none, by its configuration and its tiles."""
    values = json.loads((run / "data.json").read_text())
    if "settings" in values:
        return Provenance.from_json(values)
    made = record.of_run(cfg, corpus_of(cfg), device=torch.device("cpu"), dtype=None)
    return dataclasses.replace(made, precision="unknown", hardware="unknown", commit=None)


def trained_network(run: Path, cfg: Config) -> nn.Module:
    """The run's backbone with its exported weights, in eval mode."""
    network = make.make_backbone(cfg.backbone.model_copy(update={"start": None}))
    state = load_file(run / "export" / WEIGHTS)
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    return network.eval()


def steps_of(run: Path) -> int:
    """The step of a run's newest checkpoint; 0 without one."""
    newest = checkpoint.latest(run)
    return int(newest.name.removeprefix("step-")) if newest else 0
