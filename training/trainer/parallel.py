"""A method on several processes or with less memory: DDP, FSDP2, compiled and checkpointed blocks.

Call `checkpoint_blocks`, `compile_blocks` and `wrap` once, in this order, before the optimiser is
made. How weights are sharded is in sharding.py.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn.parallel import DistributedDataParallel

from pathencoder import runtime
from pathencoder.errors import ConfigError
from training import distributed
from training.methods import Logs, Method, Views
from training.trainer import sharding
from training.trainer.sharding import Shard, Strategy

# Graphs of one kind of block: crop sizes, with and without gradients, first and later blocks.
_GRAPHS = 64
# Buffers (running statistics, centres) are equal in all processes, so that none need be sent. torch
# has renamed the option.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"


class Step(nn.Module):
    """A method's loss as the forward pass of a module, as DDP requires."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """Loss and logs for the views of this process."""
        return self.method.loss(views, step)


def wrap(
    method: Method,
    device: torch.device,
    *,
    strategy: Strategy = "ddp",
    shard: Shard = "all",
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A method's loss over all processes.

    Args:
        method: The method, on `device`; with "fsdp" as `sharding.built` makes it. It is changed in
            place: BatchNorm uses the joint batch, and with "fsdp" its weights become sharded
            DTensors. after_step, encoder, state_dict and the optimiser still use this object.
        device: The device of this process.
        strategy: "ddp" keeps everything in each process; "fsdp" shards weights, gradients and the
            optimiser's state block by block (FSDP2), for ViT-L and larger.
        shard: With "fsdp", over which processes.
        dtype: The dtype in which FSDP gathers and computes weights (torch.bfloat16 on GPUs); None:
            the dtype of the weights.

    Returns:
        A module (views, step) -> (loss, logs). Its backward pass gives every process the gradient
        of the joint batch. In a single process: the plain loss.
    """
    sharded = sharding.applies(strategy)
    if distributed.world() > 1:
        distributed.synchronise(method, device)
    if sharded:
        sharding.shard(method, device, shard=shard, dtype=dtype)
    elif distributed.world() > 1:
        options: dict[str, Any] = {"gradient_as_bucket_view": True, _SYNC_BUFFERS: False}
        return DistributedDataParallel(Step(method), **options)
    return Step(method)


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """The complete state dict on the CPU, also of sharded weights.

    All processes must call it together. If the weights are sharded, only process 0 gets it; the
    others get an empty one.
    """
    state = get_model_state_dict(
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def compile_blocks(
    backbone: nn.Module, *, backend: str = "inductor", dynamic: bool | None = False
) -> int:
    """Compile each block in place with torch.compile; names of weights stay.

    Blocks of one shape share a graph, also where their rates of stochastic depth differ.

    Args:
        backbone: A timm network.
        backend: torch.compile's backend.
        dynamic: False makes one graph per crop size, the fastest; None lets torch decide.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: No blocks are known of this network.
    """
    _share_graphs(backbone)
    dynamo = torch._dynamo.config
    limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"
    setattr(dynamo, limit, max(getattr(dynamo, limit), _GRAPHS))
    blocks = sharding.blocks_of(backbone)
    for block in blocks:
        block.compile(backend=backend, dynamic=dynamic)
    return len(blocks)


class DropPath(nn.Module):
    """timm's stochastic depth with its rate as a tensor.

    torch.compile makes a graph for every rate that is a Python number, and after a few of them no
    longer compiles the rest of the network.
    """

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """In training: some of the N samples of x [N, ...] set to 0, the others scaled up."""
        if not self.training:
            return x
        keep = 1 - self.rate
        kept = torch.rand((len(x), *[1] * (x.ndim - 1)), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


def _share_graphs(network: nn.Module) -> None:
    for module in network.modules():
        for name, child in list(module.named_children()):
            if type(child).__name__ == "DropPath" and hasattr(child, "drop_prob"):
                device, rate = (
                    next(network.parameters()).device,
                    float(cast(float, child.drop_prob)),
                )
                setattr(module, name, DropPath(rate).to(device).train(child.training))


def checkpoint_blocks(backbone: nn.Module) -> None:
    """Switch on activation checkpointing: activations are recomputed in the backward pass.

    Args:
        backbone: A timm network.

    Raises:
        ConfigError: The network does not support it.
    """
    switch = getattr(backbone, "set_grad_checkpointing", None)
    if switch is None:
        raise ConfigError(
            f"{type(backbone).__name__} does not support activation checkpointing: train it with"
            " run.checkpoint_activations=false"
        )
    switch(enable=True)


def gains_from_bf16(network: nn.Module, device: torch.device) -> bool:
    """Whether bf16 autocast is known to make training faster.

    On devices that multiply bf16 natively; on CPUs only without grouped convolutions (measured on
    one core: ResNet-18 and ViT-Tiny 1.5 to 1.9 times as fast, MobileNetV2 0.7 times).
    """
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return runtime.gains_from_bf16(device) and not (device.type == "cpu" and grouped)
