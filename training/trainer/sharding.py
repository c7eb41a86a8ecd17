"""Weights sharded over processes by FSDP2: over all of them, or within each node.

Process 0 builds a method as a single process would, the others on the meta device, without memory.
`shard` cuts the weights block by block and sends each process its part, so that no GPU ever holds
the whole method and the weights are those of one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from pathencoder.errors import ConfigError, PathEncoderError
from training import distributed

Strategy = Literal["ddp", "fsdp"]
Shard = Literal["all", "node"]
_T = TypeVar("_T")


def applies(strategy: Strategy) -> bool:
    """Whether weights are sharded: with "fsdp" in a process group, also in one of a single GPU."""
    return strategy == "fsdp" and dist.is_available() and dist.is_initialized()


def nodes(shard: Shard) -> int:
    """How many nodes each hold a whole copy of the weights; 1: all processes share one.

    Raises:
        ConfigError: With "node", the environment does not give every node the same number of
            processes, in the order of their numbers.
    """
    here = distributed.on_this_node()
    if shard == "all":
        return 1
    if here is None:
        raise ConfigError(
            "run.shard=node: LOCAL_WORLD_SIZE and LOCAL_RANK are not set: start the processes with"
            " torchrun or training/slurm/pretrain.sbatch, or use run.shard=all"
        )
    size, number = here
    if distributed.world() % size or distributed.rank() % size != number:
        raise ConfigError(
            f"run.shard=node: process {distributed.rank()} of {distributed.world()} is number"
            f" {number} of {size} on its node: every node needs the same number of processes, and"
            " those of a node consecutive numbers. Use run.shard=all"
        )
    return distributed.world() // size


def built(make: Callable[[], _T]) -> _T:
    """Call `make` in every process: normally in process 0, on the meta device in the others.

    Raises:
        PathEncoderError: It fails in process 0. The others raise a ConfigError that says so.
    """
    if distributed.rank() != 0:
        with torch.device("meta"):
            made = make()
        if problem := distributed.from_first(""):
            raise ConfigError(f"process 0 stopped: {problem}")
        return made
    try:
        made = make()
    except PathEncoderError as error:
        distributed.from_first(str(error))
        raise
    distributed.from_first("")
    return made


def shard(
    method: nn.Module, device: torch.device, *, shard: Shard, dtype: torch.dtype | None
) -> None:
    """Shard a method in place: each backbone block by block, then its rest; other parts whole.

    Args:
        method: As `built` makes it. Weights and buffers become those of process 0.
        device: The device of this process.
        shard: Over all processes, or over those of a node, each of which has a copy.
        dtype: The dtype in which weights are gathered; None: theirs.

    Raises:
        ConfigError: The network has no known blocks, or parameters where FSDP cannot gather them.
    """
    first = distributed.rank() == 0
    for p in method.parameters():
        p.data = p.data.contiguous()  # fully_shard refuses channels_last
    whole = method.state_dict() if first else {}
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    mesh = _mesh(device, nodes(shard))
    for unit in list(_units(method)):
        if _is_backbone(unit):
            # A view as output (timm's class token) could be changed in place, unseen by FSDP,
            # which warns of it. The hook runs before FSDP's own.
            unit.register_forward_hook(lambda _module, _inputs, out: out.clone())
        for module in [*(blocks_of(unit) if _is_backbone(unit) else []), unit]:
            # Resharded after forward also at the top: a teacher has no backward pass that would do
            # it before the teacher is updated.
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    _fill(method, whole, device)


def _mesh(device: torch.device, copies: int) -> DeviceMesh:
    world = distributed.world()
    if copies == 1:
        return init_device_mesh(device.type, (world,))
    names = ("node", "process")  # weights are replicated along the first, sharded along the second
    return init_device_mesh(device.type, (copies, world // copies), mesh_dim_names=names)


def _fill(method: nn.Module, whole: dict[str, Tensor], device: torch.device) -> None:
    """Give every process its part of process 0's weights, and its buffers."""
    if distributed.rank() == 0:
        method.to(device)
    else:
        method.to_empty(device=device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(method, dict(whole), options=options)
    for buffer in method.buffers():  # a state dict leaves out those that are not persistent
        dist.broadcast(buffer, src=0)


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a timm network, in order.

    Raises:
        ConfigError: The network has none of timm's usual names of stages.
    """
    stages = [
        getattr(backbone, n)
        for n in ("blocks", "stages", "layers", "layer1", "layer2", "layer3", "layer4")
        if hasattr(backbone, n)
    ]
    found = [block for stage in stages if isinstance(stage, nn.Module) for block in _leaves(stage)]
    if not found:
        raise ConfigError(
            f"no blocks are known of {type(backbone).__name__}: train it without compile and"
            " without fsdp"
        )
    return found


def _leaves(stage: nn.Module) -> Iterator[nn.Module]:
    """The blocks inside Sequentials and inside stages that have a list `blocks`."""
    inner = getattr(stage, "blocks", None)
    if isinstance(stage, nn.Sequential | nn.ModuleList):
        for child in stage:
            yield from _leaves(child)
    elif isinstance(inner, nn.Sequential | nn.ModuleList):
        yield from _leaves(inner)
    else:
        yield stage


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """The modules to shard: those whose forward pass uses all that they hold, and backbones.

    FSDP gathers the weights of a unit in its forward pass.
    """
    has_forward = type(module).forward is not nn.Module.forward
    if _is_backbone(module) or (has_forward and not any(_is_backbone(m) for m in module.modules())):
        if any(True for _ in module.parameters()):
            yield module
        return
    if any(True for _ in module.parameters(recurse=False)):
        raise ConfigError(
            f"{type(module).__name__} holds parameters outside its submodules: put them in a module"
            " with a forward method"
        )
    for child in module.children():
        yield from _units(child)


def _is_backbone(module: nn.Module) -> bool:
    return hasattr(module, "forward_features")
