"""What a run is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from training.config import Config
from training.data.sampler import Sampler
from training.data.tiles import Corpus
from training.methods import Method, Plan
from training.monitor.log import Monitor
from training.provenance.record import Provenance
from training.trainer.signals import StopRequest


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run, which stay the same while it runs.

    Attributes:
        cfg: Its settings.
        corpus: The tiles.
        sampler: Chooses the tiles of a step.
        plan: What the method was built from; its generator draws the views.
        method: The method, on the device.
        forward: The method's loss over all processes: (views, step) -> (loss, logs).
        optimizer: The optimiser of the method.
        device: The device of this process.
        dtype: The dtype of autocast; None: no autocast.
        monitor: The log.
        provenance: What the run is made from and with.
        request: Whether the run was asked to stop.
    """

    cfg: Config
    corpus: Corpus
    sampler: Sampler
    plan: Plan
    method: Method
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    dtype: torch.dtype | None
    monitor: Monitor
    provenance: Provenance
    request: StopRequest
