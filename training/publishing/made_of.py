"""What is published: the export of a checkpoint, or of an average of runs, with its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pathencoder.errors import ConfigError
from pathencoder.pretrained.folder import parse_config
from training.config import Config
from training.export import Opened, open_run
from training.provenance.record import Provenance
from training.publishing.average import averaged_network, configs_of, reexport
from training.publishing.card import RECORD
from training.trainer.export import export_method, exported_network


@dataclass(frozen=True)
class Made:
    """An export, and what it was made of.

    Attributes:
        configs: Settings of the runs.
        made_from: Their record.
        network: In fp32, to compare the export with.
        checkpoint: Its folder; None of an average.
    """

    configs: list[Config]
    made_from: Provenance
    network: nn.Module
    checkpoint: Path | None


def opened(run: Path, step: int | None) -> Opened:
    """A checkpoint of an encoder.

    Args:
        run: The run's folder.
        step: A step with a checkpoint; None: the newest.

    Raises:
        ConfigError: There is no such checkpoint, or the run trains no encoder of timm.
        StoreError: The checkpoint is damaged.
    """
    found = open_run(run, step)
    if found.cfg.method.own_network:
        raise ConfigError(
            f"{run}: {found.cfg.method.name} trains a network of its own, not an encoder of"
            " timm: only encoders are published by this command"
        )
    return found


def exported(run: Opened, folder: Path) -> Made:
    """Export a checkpoint into a folder."""
    export_method(run.cfg, run.method, run.made_from, folder, step=run.step, start=run.start)
    network = exported_network(run.cfg, run.method, run.start)
    if network is None:  # pragma: no cover  # one process
        raise ConfigError("publish from one process")
    return Made([run.cfg], run.made_from, network, run.checkpoint)


def averaged(runs: Sequence[Path], folder: Path) -> Made:
    """Export the average of runs into a folder.

    Raises:
        ConfigError: See `configs_of`.
    """
    settings = configs_of(runs)
    reexport(runs, folder)
    made_from = Provenance.from_json(parse_config(folder / RECORD))
    return Made(settings, made_from, averaged_network(runs, settings), None)
