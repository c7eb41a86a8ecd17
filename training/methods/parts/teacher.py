"""Networks that give targets: a teacher, or any moving average that a student learns from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.distributed import SyncedBatchNorm

_BATCH_NORMS = (_BatchNorm, SyncedBatchNorm)


@contextmanager
def as_teacher(*networks: nn.Module | None) -> Iterator[None]:
    """Inside, the networks give targets: without gradients, dropout and stochastic depth.

    Two passes of the same images then give equal targets, as in the code of DINO (whose teacher
    is built without stochastic depth) and DINOv2 (whose teacher is in eval mode).

    BatchNorm stays in its mode. In training it normalises by the teacher's own batch, as in the
    code of BYOL and DINO: student and teacher then normalise alike, and the running statistics,
    which lag behind the weights early in a run, do not shift the targets.

    Args:
        networks: The networks; None is left out. On leaving, every module is in its former mode.
    """
    switched = [
        module
        for network in networks
        if network is not None
        for module in network.modules()
        if module.training and not isinstance(module, _BATCH_NORMS)
    ]
    for module in switched:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in switched:
            module.training = True
