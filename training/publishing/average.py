"""Export finished runs again, without training: averaged, or with another embedding rule."""

from __future__ import annotations

import dataclasses
import json
import logging
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
from training.from_config import corpus_of, network_at_start
from training.provenance import record, saved_steps
from training.provenance.record import Provenance
from training.trainer.export import export

log = logging.getLogger("training")


def reexport(
    runs: Sequence[Path], folder: Path, *, start_share: float = 0.0, embedding: str | None = None
) -> Path:
    """Export one encoder of several runs.

    Its weights are the plain average of those of the runs, which start from the same weights, see
    the same tiles and differ in seed or settings (Wortsman et al. 2022, arXiv:2203.05482), then
    averaged with the first run's starting weights.

    Args:
        runs: Their folders.
        folder: Where to write the encoder.
        start_share: Share of the starting weights.
        embedding: The embedding rule; the first run's own if None.

    Returns:
        `folder`.

    Raises:
        ConfigError: See `configs_of` and `record_of_all`: from an average with the starting
            weights, the trained weights cannot be recovered.
    """
    configs = configs_of(runs)
    cfg, made_from = configs[0], record_of_all(runs, configs)
    network = averaged_network(runs, configs, start_share=start_share)
    backbone = cfg.backbone.model_copy(update={"embedding": embedding or cfg.backbone.embedding})
    exported = cfg.export.model_copy(update={"start_share": start_share})
    cfg = cfg.model_copy(update={"backbone": backbone, "export": exported})
    return export(cfg, network, made_from, folder, steps=[*map(steps_of, runs)])


def configs_of(runs: Sequence[Path]) -> list[Config]:
    """The settings of runs that can be averaged.

    Args:
        runs: Their folders.

    Returns:
        The settings of each.

    Raises:
        ConfigError: A run has no settings or no export, its export is an average with its
            starting weights already, or it is of another network.
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
    _refuse_strangers(runs, configs)
    return configs


def _refuse_strangers(runs: Sequence[Path], configs: Sequence[Config]) -> None:
    """Refuse an average that would mean nothing; say where runs start from different weights."""
    first = configs[0].backbone
    for run, cfg in zip(runs[1:], configs[1:], strict=True):
        other = cfg.backbone
        if (other.architecture, other.args) != (first.architecture, first.args):
            raise ConfigError(
                f"{run} is a {other.architecture} with {other.args}, {runs[0]} a"
                f" {first.architecture} with {first.args}: only equal networks can be averaged"
            )
        if _start_of(cfg) != _start_of(configs[0]):
            log.warning(
                "%s starts from %s, %s from %s: an average of networks without a common start means"
                " nothing",
                run,
                _start_of(cfg),
                runs[0],
                _start_of(configs[0]),
            )


def _start_of(cfg: Config) -> str:
    """The starting weights in words; random ones are known by their seed."""
    start = cfg.backbone.start
    return f"random weights of seed {cfg.seed}" if start is None else str(start)


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
        network = make.averaged(network, network_at_start(cfg), start_share)
    return network


def record_of_all(runs: Sequence[Path], configs: Sequence[Config]) -> Provenance:
    """The first run's record, with the strictest licence of all runs.

    Raises:
        ConfigError: A run was trained on other tiles: a record names those of one corpus.
    """
    first, *others = (record_of(run, cfg) for run, cfg in zip(runs, configs, strict=True))
    for run, other in zip(runs[1:], others, strict=True):
        if other.corpus.digest != first.corpus.digest:
            raise ConfigError(
                f"{run} was trained on {other.corpus.tiles:,} tiles that are not the"
                f" {first.corpus.tiles:,} of {runs[0]}: a card names the tiles of one corpus, so"
                " that only runs on the same tiles can be averaged"
            )
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
    newest = saved_steps.latest(run)
    return int(newest.name.removeprefix("step-")) if newest else 0
