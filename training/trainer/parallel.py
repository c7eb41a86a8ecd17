"""A method over several processes and in less memory: DDP, FSDP2, compiled and checkpointed blocks.

Call these once, in this order, before the optimiser is made: `checkpoint_blocks`, `compile_blocks`,
`wrap`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from pathencoder import runtime
from pathencoder.errors import ConfigError
from training import distributed
from training.methods import Logs, Method, Views

Strategy = Literal["ddp", "fsdp"]
_GRAPHS = 64  # of one kind of block: crop sizes, with and without gradients, first and later blocks
# Buffers (running statistics, centres) come out alike in all processes, so nothing need be sent;
# torch has renamed the switch.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS_STAY = "forward_sync_buffers" if _RENAMED else "broadcast_buffers"


class Step(nn.Module):
    """A method's loss as a module's forward, which is where DDP hooks in.

    `method` holds the weights.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Views, step: int) -> tuple[Tensor, Logs]:
        """(loss, logs) of one process's views."""
        return self.method.loss(views, step)


def wrap(
    method: Method,
    device: torch.device,
    *,
    strategy: Strategy = "ddp",
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A callable `(views, step) -> (loss, logs)` whose backward leaves in every process the gradient of the joint batch.

    method: on `device` already; it is changed in place (BatchNorm over all processes; with "fsdp" its weights become sharded
    DTensors) and stays what after_step, encoder, state_dict and the optimiser are asked of. strategy: "ddp" holds everything in
    each process; "fsdp" shards weights, gradients and optimiser block by block (FSDP2), for ViT-L and up. dtype: what FSDP
    gathers and computes weights in (torch.bfloat16 on GPUs); None: as they are. In a single process: the plain loss.
    """
    if distributed.world() == 1:
        return Step(method)
    distributed.synchronise(method, device)
    if strategy == "ddp":
        return DistributedDataParallel(
            Step(method), gradient_as_bucket_view=True, **{_BUFFERS_STAY: False}
        )
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    _shard(method, init_device_mesh(device.type, (distributed.world(),)), policy)
    return Step(method)


def full_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict whole and on the CPU, however the weights are sharded.

    All processes must call it together; where they are sharded, process 0 alone gets it and the
    others an empty one.
    """
    state = get_model_state_dict(
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a timm network, in order.

    Raises ConfigError for a network that has none of timm's usual names.
    """
    stages = [
        getattr(backbone, n)
        for n in ("blocks", "stages", "layers", "layer1", "layer2", "layer3", "layer4")
        if hasattr(backbone, n)
    ]
    found = [block for stage in stages if isinstance(stage, nn.Module) for block in _leaves(stage)]
    if not found:
        raise ConfigError(
            f"{type(backbone).__name__} has no blocks that are known here: train it without compile"
            " and without fsdp"
        )
    return found


def compile_blocks(
    backbone: nn.Module, *, backend: str = "inductor", dynamic: bool | None = False
) -> int:
    """Compile each block in place with torch.compile (names of weights stay); returns how many.

    Blocks of one shape share a graph, also where their rates of stochastic depth differ. dynamic:
    False makes one graph a crop size, the fastest to run.
    """
    _share_graphs(backbone)
    dynamo = torch._dynamo.config
    limit = "recompile_limit" if hasattr(dynamo, "recompile_limit") else "cache_size_limit"
    setattr(dynamo, limit, max(getattr(dynamo, limit), _GRAPHS))
    blocks = blocks_of(backbone)
    for block in blocks:
        block.compile(backend=backend, dynamic=dynamic)
    return len(blocks)


class DropPath(nn.Module):
    """Stochastic depth as timm's, its rate a tensor.

    torch.compile makes a graph for every rate that is a number, and gives up, leaving the rest of
    the network as it was, after a few of them.
    """

    rate: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, ...] with some of its entries 0 and the others larger, in training; else x."""
        if not self.training:
            return x
        keep = 1 - self.rate
        kept = torch.rand((len(x), *[1] * (x.ndim - 1)), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


def _share_graphs(network: nn.Module) -> None:
    for module in network.modules():
        for name, child in list(module.named_children()):
            if type(child).__name__ == "DropPath" and hasattr(child, "drop_prob"):
                device = next(network.parameters()).device
                setattr(module, name, DropPath(child.drop_prob).to(device).train(child.training))


def checkpoint_blocks(backbone: nn.Module) -> None:
    """Activation checkpointing by timm's own switch.

    A block's inside is computed again in backward instead of kept.
    """
    switch = getattr(backbone, "set_grad_checkpointing", None)
    if switch is None:
        raise ConfigError(
            f"{type(backbone).__name__} cannot checkpoint its activations: train it without"
        )
    switch(enable=True)


def gains_from_bf16(network: nn.Module, device: torch.device) -> bool:
    """Whether bf16 autocast is known to make training faster.

    On devices that multiply bf16 natively; on CPUs only without grouped convolutions (measured on
    one core: ResNet-18 and ViT-Tiny 1.5 to 1.9 times as fast, MobileNetV2 0.7 times).
    """
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    return runtime.gains_from_bf16(device) and not (device.type == "cpu" and grouped)


def _leaves(stage: nn.Module) -> Iterator[nn.Module]:
    """Through Sequentials and stages that hold their own `blocks`, down to the blocks."""
    inner = getattr(stage, "blocks", None)
    if isinstance(stage, nn.Sequential | nn.ModuleList):
        for child in stage:
            yield from _leaves(child)
    elif isinstance(inner, nn.Sequential | nn.ModuleList):
        yield from _leaves(inner)
    else:
        yield stage


def _shard(method: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """Each backbone block by block and then its rest; every other part of the method as one."""
    for unit in list(_units(method)):
        for module in [*(blocks_of(unit) if _is_backbone(unit) else []), unit]:
            # Resharded after forward also at the top: a teacher has no backward that would do it
            # before it is updated.
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """The parts whose own forward runs all that they hold, which is when FSDP gathers weights.

    Backbones are always parts.
    """
    has_forward = type(module).forward is not nn.Module.forward
    if _is_backbone(module) or (has_forward and not any(_is_backbone(m) for m in module.modules())):
        if any(True for _ in module.parameters()):
            yield module
        return
    if any(True for _ in module.parameters(recurse=False)):
        raise ConfigError(
            f"{type(module).__name__} holds parameters beside its parts: put them in a module with"
            " a forward of its own"
        )
    for child in module.children():
        yield from _units(child)


def _is_backbone(module: nn.Module) -> bool:
    return hasattr(module, "forward_features")
