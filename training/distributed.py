"""The few collective operations that methods need; each is the identity in a single process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """[n, ...] of every process stacked in rank order to [world n, ...]; gradients flow back to each owner."""
    if world() == 1:
        return x
    import torch.distributed.nn.functional as differentiable

    return torch.cat(differentiable.all_gather(x.contiguous()))


def mean(x: Tensor) -> Tensor:
    """The mean over processes, without a gradient."""
    x = x.detach().clone()
    if world() > 1:
        dist.all_reduce(x)
        x /= world()
    return x


def device_of(name: str) -> torch.device:
    """ "auto" is this process's GPU where there is one, else the CPU; any other name is torch's."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda", rank() % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
