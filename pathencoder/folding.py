"""A copy of a CNN that a CPU runs up to twice as fast, with the same results to about 1e-6.

BatchNorms with fixed statistics are folded into the convolutions before them (`folded_convs.py`),
once for inference, at each call for training. The network itself is not changed, and the copy
shares all other tensors with it.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pathencoder.folded_convs import (
    SamePadded,
    TrainedConv,
    can_fold,
    pads_like_tensorflow,
    weights_of,
)
from pathencoder.runtime import precision_used
from pathencoder.wrapped import bare, is_wrapped

log = logging.getLogger(__name__)

_TOLERANCE = 1e-4  # of the largest value; a fold of the wrong pair is wrong by far more
_SIDE = 64  # px of the images on which a copy is compared with its network
# by the stages that are read by name, and whether the copy is trained
_Copies = dict[tuple[frozenset[str], bool], "_Copy | None"]
_made: weakref.WeakKeyDictionary[nn.Module, _Copies] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_OF_TORCH = frozenset(vars(nn.Module()))  # attributes of every module: its mode, parts and hooks
_PLAIN = (bool, int, float, str)
_Settings = tuple[type, tuple[tuple[str, Any], ...]]


def for_inference(
    network: nn.Module, precision: str, stages: frozenset[str] = frozenset()
) -> nn.Module:
    """The module that computes the rows of `encode`.

    Args:
        network: A timm network, wrapped or not.
        precision: As for `encode`.
        stages: As for `folded`.

    Returns:
        A folded copy where a CPU computes in float32, else the network without wrappers.

    Raises:
        ConfigError: It is not a timm network, or it cannot run at that precision.
    """
    inner: nn.Module = bare(network)
    first = next(inner.parameters())
    single = precision_used(precision, first.dtype) == "fp32"
    return folded(inner, stages) if single and first.device.type == "cpu" else inner


def for_training(network: nn.Module, stages: frozenset[str] = frozenset()) -> nn.Module:
    """The module to run where a network is trained with fixed statistics of its BatchNorms.

    It takes .7 to .8 of the time, half with adapters of LoRA, forward and backward. Its
    parameters are those of the network: gradients arrive there. Take it anew for each batch.

    Args:
        network: A timm network in eval mode, wrapped or not. Adapters of LoRA stay active.
        stages: As for `folded`.

    Returns:
        A folded copy of a network of float32 weights on a CPU, else the network without wrappers.

    Raises:
        ConfigError: It is not a timm network.
    """
    inner: nn.Module = bare(network)
    first = next(inner.parameters())
    fits = first.dtype == torch.float32 and first.device.type == "cpu"
    return folded(inner, stages, trained=True) if fits else inner


def folded(
    network: nn.Module, stages: frozenset[str] = frozenset(), *, trained: bool = False
) -> nn.Module:
    """The network with BatchNorms folded, with the weights as they are now.

    Args:
        network: A timm network without a wrapper, with float32 weights on the CPU.
        stages: The modules whose outputs are read (`outputs.stages_read`). A convolution among them
            is left as it is: folded, its output would be that of the BatchNorm after it.
        trained: The copy has the parameters of the network, and folds them at each call.

    Returns:
        The copy, in eval mode; the network itself where nothing can be folded, where parts of it
        are wrapped, where hooks are registered (they would not be called), where merged adapters
        are switched off, or where a trial gives another result.
    """
    if is_wrapped(network) or has_hooks(network) or _will_unmerge(network):
        return network
    with _lock:
        copies = _made.setdefault(network, {})
        key = stages, trained
        made = copies.get(key)
        if key not in copies or (made is not None and not made.is_of(network)):
            made = copies[key] = _copied(network, stages, trained=trained)
        if made is None:
            return network
        made.update(network)
        return made.network


@dataclass(frozen=True)
class _Pair:
    """A convolution and the BatchNorm after it, by their paths."""

    conv: str
    norm: str


@dataclass(frozen=True)
class _Copy:
    """A folded copy and what it was made of."""

    network: nn.Module
    pairs: tuple[_Pair, ...]
    modules: Modules

    def is_of(self, network: nn.Module) -> bool:
        """Whether the network still consists of the modules that were copied."""
        return consists_of(network, self.modules)

    def update(self, network: nn.Module) -> None:
        """Take the tensors of the network as they are now."""
        theirs = dict(network.named_modules())
        folded_here = {path for pair in self.pairs for path in (pair.conv, pair.norm)}
        for path, module in self.network.named_modules():
            if path in theirs and path not in folded_here:
                _share(module, theirs[path])
        for pair in self.pairs:
            conv, norm = theirs[pair.conv], theirs[pair.norm]
            own = self.network.get_submodule(pair.conv)
            if isinstance(own, TrainedConv):
                for part, other in zip(own.conv.modules(), conv.modules(), strict=True):
                    _share(part, other)
                _share(own.norm, norm)
            else:
                _set_weights(own, conv, norm)


@dataclass(frozen=True)
class Modules:
    """The modules of a network and their settings, by which `consists_of` knows them.

    A copy has settings of its own: a stride, or whether an adapter of LoRA is switched off.
    """

    refs: tuple[weakref.ref[nn.Module], ...]
    settings: tuple[_Settings, ...]


def modules_of(network: nn.Module) -> Modules:
    """The modules of a network as they are now."""
    modules = list(network.modules())
    return Modules(tuple(map(weakref.ref, modules)), tuple(map(_settings_of, modules)))


def consists_of(network: nn.Module, modules: Modules) -> bool:
    """Whether a network still has these modules, with these settings, and no others."""
    now = list(network.modules())
    return (
        len(now) == len(modules.refs)
        and all(ref() is module for ref, module in zip(modules.refs, now, strict=True))
        and tuple(map(_settings_of, now)) == modules.settings
    )


def _settings_of(module: nn.Module) -> _Settings:
    """Class and attributes of a module, those of torch left out."""
    own = vars(module).items()
    return type(module), tuple((k, _fixed(v)) for k, v in own if k not in _OF_TORCH)


def _fixed(value: Any) -> Any:
    """A copy of a plain value that is compared later; the type of another."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return tuple(map(_fixed, value))
    if isinstance(value, dict):
        return tuple((key, _fixed(item)) for key, item in value.items())
    return type(value)


def _will_unmerge(network: nn.Module) -> bool:
    """Whether adapters of peft are merged and switched off.

    They then change the weights as soon as they run. A copy would do so to those that it shares,
    and the network would not know.
    """
    return any(
        getattr(m, "merged_adapters", None) and m.disable_adapters for m in network.modules()
    )


def has_hooks(network: nn.Module) -> bool:
    """Whether hooks would be called when the network runs."""
    from torch.nn.modules import module as registered

    everywhere = registered._global_forward_hooks or registered._global_forward_pre_hooks
    return bool(everywhere) or any(
        m._forward_hooks or m._forward_pre_hooks for m in network.modules()
    )


def _share(module: nn.Module, other: nn.Module) -> None:
    """Use the tensors of another module."""
    module._parameters.update(other._parameters)
    module._buffers.update(other._buffers)


def _copied(network: nn.Module, stages: frozenset[str], *, trained: bool) -> _Copy | None:
    """A folded copy; None where nothing can be folded or the trial fails."""
    pairs = tuple(pair for pair in _pairs(network, adapters=trained) if pair.conv not in stages)
    if not pairs or not _agrees(network, pairs, trained=trained):
        return None
    shared = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    twin = copy.deepcopy(network, shared)
    _fold(twin, pairs, trained=trained)
    return _Copy(twin.eval(), pairs, modules_of(network))


def _pairs(network: nn.Module, *, adapters: bool = False) -> tuple[_Pair, ...]:
    """Each convolution that a BatchNorm follows in the list of a module's children."""
    found = []
    for path, parent in network.named_modules():
        children = list(parent.named_children())
        prefix = f"{path}." if path else ""
        for (name, conv), (after, norm) in itertools.pairwise(children):
            if can_fold(conv, norm, adapters=adapters):
                found.append(_Pair(prefix + name, prefix + after))
    return tuple(found)


def _fold(twin: nn.Module, pairs: tuple[_Pair, ...], *, trained: bool = False) -> None:
    """Put the modules of a folded network in place; the weights follow with `_set_weights`."""
    for pair in pairs:
        conv: Any = twin.get_submodule(pair.conv)
        norm: Any = twin.get_submodule(pair.norm)
        _replace(twin, pair.norm, getattr(norm, "act", nn.Identity()))
        if trained:
            _replace(twin, pair.conv, TrainedConv(conv, norm))
        elif pads_like_tensorflow(conv):
            _replace(twin, pair.conv, SamePadded(conv))


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _set_weights(target: Any, conv: Any, norm: Any) -> None:
    """Give a convolution the weights of `conv` and `norm` together."""
    plain = target.conv if isinstance(target, SamePadded) else target
    with torch.no_grad():
        weight, bias = weights_of(conv, norm)
    plain.weight = nn.Parameter(
        weight.contiguous(memory_format=torch.channels_last), requires_grad=False
    )
    plain.bias = nn.Parameter(bias, requires_grad=False)
    if isinstance(target, SamePadded):
        target.widen()


def _agrees(network: nn.Module, pairs: tuple[_Pair, ...], *, trained: bool) -> bool:
    """Whether folding these pairs keeps the result, whatever the statistics are.

    The statistics of a copy are changed first: a BatchNorm that changes nothing would agree with
    any fold.
    """
    trial: Any = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    for pair in pairs:
        norm: Any = trial.get_submodule(pair.norm)
        for values in (norm.running_mean, norm.running_var):
            spread = values.abs().mean() + 0.1
            values.add_(spread * torch.rand(values.shape, generator=generator))
    x = torch.randn((2, 3, _SIDE, _SIDE), generator=generator)
    before = dict(trial.named_modules())
    try:
        # at full precision, also where the caller uses mixed precision
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            expected = trial.forward_features(x)
            _fold(trial, pairs, trained=trained)
            for pair in () if trained else pairs:
                _set_weights(trial.get_submodule(pair.conv), before[pair.conv], before[pair.norm])
            found = trial.forward_features(x)
    except (RuntimeError, AssertionError) as error:  # a fixed input size, for example
        log.debug("not folded: %s", error)
        return False
    largest = expected.abs().max()
    close = bool(largest > 0 and (found - expected).abs().max() <= _TOLERANCE * largest)
    if not close:
        log.debug("not folded: the result is another")
    return close
