"""Collectives with gradients, and batch normalisation over the joint batch of all processes.

Everything here is the identity in a single process. Scale of gradients: each process
backpropagates its loss, and DDP and FSDP average the gradients of weights. A loss that is a mean
over samples therefore needs nothing more. A loss of gathered rows needs the sum of all processes'
gradients at the rows, which `gather` and `total` give.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pathencoder import compat

_T = TypeVar("_T")
_LOST = ("connection", "timed out", "timeout")  # in gloo's errors


@contextmanager
def processes(timeout_minutes: float | None = None) -> Iterator[None]:
    """Inside: the process group that torchrun's environment describes; none without torchrun.

    NCCL where there is CUDA, else gloo.

    Args:
        timeout_minutes: A collective that waits longer than this for a process is an error; None:
            torch's default, 10 minutes with NCCL and 30 with gloo.
    """
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    timeout = None if timeout_minutes is None else timedelta(minutes=timeout_minutes)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


def lost_process(error: BaseException) -> str:
    """What an error says of another process that ended or did not answer in time; "" for others.

    NCCL's errors have a class of their own; gloo's are known by their text alone.
    """
    text = str(error).partition("\n")[0]
    gloo = "gloo" in text and any(word in text.casefold() for word in _LOST)
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and gloo):
        # without the line of the source file in front, and without advice
        return re.sub(r"^\[[^]]*\]\s*", "", text).partition(". ")[0] or type(error).__name__
    return ""


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def on_this_node() -> tuple[int, int] | None:
    """Processes of this node and this one's number among them, as torchrun's environment says.

    None where it does not say.
    """
    size, number = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("LOCAL_RANK")
    return (int(size), int(number)) if size and number else None


def device_of(name: str) -> torch.device:
    """The device of this name; "auto" is this process's GPU where there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device(
        "cuda", int(os.environ.get("LOCAL_RANK", rank())) % torch.cuda.device_count()
    )


def from_first(value: _T) -> _T:
    """The value of process 0, in every process; it may be anything that pickle takes."""
    if world() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def share(joint: Tensor, dim: int = 0) -> Tensor:
    """This process's part of a joint tensor: entries rank, rank + world, ... of `dim`."""
    return joint if world() == 1 else joint[(slice(None),) * dim + (slice(rank(), None, world()),)]


def gather(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes in the order of ranks: [n, ...] to [world n, ...].

    The gradients of all processes flow back to each process's rows.
    """
    if world() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


def total(x: Tensor) -> Tensor:
    """The sum over processes; gradients of all processes flow back to each."""
    if world() == 1:
        return x
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


def mean(x: Tensor) -> Tensor:
    """The mean over processes, without a gradient."""
    x = x.detach().clone()
    if world() > 1:
        dist.all_reduce(x)
        x /= world()
    return x


def largest(x: Tensor) -> Tensor:
    """The largest entry of all processes' tensors, a scalar without a gradient."""
    top = x.detach().max() if x.numel() else x.new_tensor(float("-inf"))
    if world() > 1:
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
    return top


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(world())[rank()]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _Total.forward(ctx, grad)


def synchronise(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm inside a module by one over all processes' samples.

    It is torch's SyncBatchNorm on CUDA, `SyncedBatchNorm` elsewhere. Parameters, buffers and their
    names stay. Nothing changes in a single process.

    Returns:
        The module itself; if it is a BatchNorm, its replacement.
    """
    if world() == 1:
        return module
    if device.type == "cuda":
        compat.import_timm()
        from timm.layers import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(module)
        return converted
    if isinstance(module, _BatchNorm):
        return SyncedBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, synchronise(child, device))
    return module


class SyncedBatchNorm(nn.Module):
    """Batch normalisation by the statistics of all processes' samples together.

    It replaces one BatchNorm of torch or timm, and keeps its parameters and buffers. The result is
    that of one process with the joint batch.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, replaced: _BatchNorm) -> None:
        super().__init__()
        self.eps, self.momentum = replaced.eps, replaced.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(replaced, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(replaced, name))
        # timm's BatchNormAct2d
        self.drop, self.act = (
            getattr(replaced, name, None) or nn.Identity() for name in ("drop", "act")
        )
        self.train(replaced.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, ...]; shape and dtype stay."""
        if self.training or self.running_mean is None:
            out = self._by_joint_batch(x)
        else:
            out = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        done: Tensor = self.act(self.drop(out))
        return done

    def _by_joint_batch(self, x: Tensor) -> Tensor:
        dims, per_channel = [0, *range(2, x.dim())], (1, -1, *(1,) * (x.dim() - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        rows = wide.new_tensor([x.numel() // x.shape[1]])
        sums = total(torch.cat([wide.sum(dims), rows]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = wide - mean.view(per_channel)
        var = total(centred.square().sum(dims)) / count
        self._follow(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        out = centred * (var + self.eps).rsqrt().view(per_channel)
        if self.weight is not None and self.bias is not None:
            out = out * self.weight.view(per_channel) + self.bias.view(per_channel)
        return out.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Update the running statistics as torch's BatchNorm does."""
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(var, weight)
