"""Networks inside wrappers: torch.compile, DataParallel, averaged models, PEFT."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn

from pathencoder.errors import ConfigError

# Attributes that hold the wrapped module: torch.compile; DataParallel, DistributedDataParallel,
# FSDP, averaged models.
_INSIDE = ("_orig_mod", "module")
# Components that wrappers add to parameter names.
_ADDED = frozenset({"_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})


def bare(network: Any) -> Any:
    """The timm network without the wrappers around it.

    The encoder reads inner stages of its network, so it runs the module inside the wrapper: a
    compiled network runs as before compiling, a parallel one on one device. A warning says so once.

    Args:
        network: A timm network, in any number of wrappers.

    Raises:
        ConfigError: The module is neither a timm network nor a known wrapper.
    """
    inner = network
    while isinstance(inner, nn.Module):
        following = _inside(inner)
        if following is None:
            break
        _warn_unwrapped(type(inner).__name__)
        inner = following
    if not hasattr(inner, "forward_features"):
        raise ConfigError(
            f"encoder.network is a {type(inner).__name__}, not a timm network: put other modules"
            " around the encoder, and leave encoder.network as it was loaded"
        )
    return inner


def is_wrapped(network: nn.Module) -> bool:
    """Whether another module is around the network, or a part of it."""
    return any(_inside(module) is not None for module in network.modules())


def plain_state(network: Any, names: Collection[str]) -> dict[str, Tensor]:
    """The network's tensors under timm's key names.

    Args:
        network: A timm network, in wrappers or with wrapped parts.
        names: The key names of the network without wrappers.

    Raises:
        ConfigError: The network holds adapters whose weights are not merged.
    """
    state: dict[str, Tensor] = {_plain(k, names): v for k, v in bare(network).state_dict().items()}
    adapters = [k for k in state if "lora_" in k or ".base_layer." in k]
    if adapters:
        raise ConfigError(
            f"encoder.network holds {len(adapters)} tensors of adapters (PEFT), which timm's format"
            " cannot store: merge them first, encoder.network ="
            " encoder.network.merge_and_unload()"
        )
    return state


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards the mode of each module is restored."""
    training = [m for m in network.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _inside(module: nn.Module) -> nn.Module | None:
    children = module._modules
    if "base_model" in children and hasattr(module, "peft_config"):
        inner: nn.Module = module.get_base_model()  # type: ignore[operator]
        return inner
    return next((children[name] for name in _INSIDE if name in children), None)


@functools.cache
def _warn_unwrapped(wrapper: str) -> None:
    if wrapper == "OptimizedModule":
        text = (
            "compiled; the encoder reads its inner stages and runs it as it was: compile the"
            " encoder instead"
        )
    elif "Parallel" in wrapper:
        text = f"in {wrapper}; the encoder reads its inner stages and runs it on one device"
    else:
        return
    warnings.warn(f"encoder.network is {text}", UserWarning, stacklevel=4)


def _plain(key: str, names: Collection[str]) -> str:
    """The key without the components of wrappers, if the network has a key of that name."""
    if key in names:
        return key
    plain = ".".join(part for part in key.split(".") if part not in _ADDED)
    return plain if plain in names else key
