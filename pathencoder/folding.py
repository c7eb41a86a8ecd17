"""A copy of a CNN that a CPU runs up to twice as fast, with the same results to about 1e-6.

- A BatchNorm with fixed statistics is a factor and a shift a channel: both go into the weights of
  the convolution before it (Jacob et al. 2018, section 3.2).
- TensorFlow's "same" padding pads one side more than the other, which timm does by copying the
  input into a larger tensor. A kernel with a first row and column of zeros and equal padding on all
  sides reads the same values without the copy.

The network itself is not changed, and the copy shares all other tensors with it.
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
from torch import Tensor, nn

from pathencoder import compat
from pathencoder.runtime import precision_used
from pathencoder.wrapped import bare, is_wrapped

log = logging.getLogger(__name__)

Modules = tuple[weakref.ref[nn.Module], ...]

_TOLERANCE = 1e-4  # of the largest value; a fold of the wrong pair is wrong by far more
_SIDE = 64  # px of the images on which a copy is compared with its network
# by the stages that are read by name
_Copies = dict[frozenset[str], "_Copy | None"]
_made: weakref.WeakKeyDictionary[nn.Module, _Copies] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


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


def folded(network: nn.Module, stages: frozenset[str] = frozenset()) -> nn.Module:
    """The network with BatchNorms folded, with the weights as they are now.

    Args:
        network: A timm network without a wrapper, with float32 weights on the CPU.
        stages: The modules whose outputs are read (`outputs.stages_read`). A convolution among them
            is left as it is: folded, its output would be that of the BatchNorm after it.

    Returns:
        The copy, in eval mode; the network itself where nothing can be folded, where parts of it
        are wrapped, where hooks are registered (they would not be called), or where a trial gives
        another result.
    """
    if is_wrapped(network) or has_hooks(network):
        return network
    with _lock:
        copies = _made.setdefault(network, {})
        made = copies.get(stages)
        if stages not in copies or (made is not None and not made.is_of(network)):
            made = copies[stages] = _copied(network, stages)
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
                module._parameters.update(theirs[path]._parameters)
                module._buffers.update(theirs[path]._buffers)
        for pair in self.pairs:
            _set_weights(
                self.network.get_submodule(pair.conv), theirs[pair.conv], theirs[pair.norm]
            )


class SamePadded(nn.Module):
    """A convolution with an odd kernel, stride 2 and TensorFlow's "same" padding."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv  # pads by a copy
        self.pad = conv.kernel_size[0] // 2
        self.widened: Tensor
        self.widen()

    def widen(self) -> None:
        """Make the larger kernel of the present weights."""
        self.widened = nn.functional.pad(self.conv.weight.detach(), (1, 0, 1, 0)).contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to half of its height and width, rounded up."""
        odd = {side % 2 for side in x.shape[2:]}
        if len(odd) == 2:
            result: Tensor = self.conv(x)
            return result
        weight = self.conv.weight if odd == {1} else self.widened
        return nn.functional.conv2d(
            x, weight, self.conv.bias, stride=2, padding=self.pad, groups=self.conv.groups
        )


def modules_of(network: nn.Module) -> Modules:
    """The modules of a network, by which `consists_of` knows them."""
    return tuple(weakref.ref(module) for module in network.modules())


def consists_of(network: nn.Module, modules: Modules) -> bool:
    """Whether a network still has these modules and no others."""
    now = list(network.modules())
    return len(now) == len(modules) and all(
        ref() is module for ref, module in zip(modules, now, strict=True)
    )


def has_hooks(network: nn.Module) -> bool:
    """Whether hooks would be called when the network runs."""
    from torch.nn.modules import module as registered

    everywhere = registered._global_forward_hooks or registered._global_forward_pre_hooks
    return bool(everywhere) or any(
        m._forward_hooks or m._forward_pre_hooks for m in network.modules()
    )


def _copied(network: nn.Module, stages: frozenset[str]) -> _Copy | None:
    """A folded copy; None where nothing can be folded or the trial fails."""
    pairs = tuple(pair for pair in _pairs(network) if pair.conv not in stages)
    if not pairs or not _agrees(network, pairs):
        return None
    shared = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    twin = copy.deepcopy(network, shared)
    _fold(twin, pairs)
    return _Copy(twin.eval(), pairs, modules_of(network))


def _pairs(network: nn.Module) -> tuple[_Pair, ...]:
    """Each convolution that a BatchNorm follows in the list of a module's children."""
    found = []
    for path, parent in network.named_modules():
        children = list(parent.named_children())
        prefix = f"{path}." if path else ""
        for (name, conv), (after, norm) in itertools.pairwise(children):
            if _can_fold(conv, norm):
                found.append(_Pair(prefix + name, prefix + after))
    return tuple(found)


def _can_fold(conv: Any, norm: Any) -> bool:
    compat.import_timm()
    from timm.layers import BatchNormAct2d
    from timm.layers.conv2d_same import Conv2dSame

    return (
        type(conv) in (nn.Conv2d, Conv2dSame)  # a subclass may compute something else
        and type(norm) in (nn.BatchNorm2d, BatchNormAct2d)
        and norm.running_mean is not None
        and norm.num_features == conv.out_channels
    )


def _fold(twin: nn.Module, pairs: tuple[_Pair, ...]) -> None:
    """Put the modules of a folded network in place; the weights follow with `_set_weights`."""
    for pair in pairs:
        conv: Any = twin.get_submodule(pair.conv)
        norm: Any = twin.get_submodule(pair.norm)
        _replace(twin, pair.norm, getattr(norm, "act", nn.Identity()))
        if _pads_like_tensorflow(conv):
            _replace(twin, pair.conv, SamePadded(conv))


def _pads_like_tensorflow(conv: Any) -> bool:
    kernel = conv.kernel_size
    return (
        type(conv) is not nn.Conv2d
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and kernel[0] == kernel[1]
        and kernel[0] % 2 == 1
    )


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _set_weights(target: Any, conv: Any, norm: Any) -> None:
    """Give a convolution the weights of `conv` and `norm` together."""
    plain = target.conv if isinstance(target, SamePadded) else target
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var + norm.eps)
        shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        if norm.weight is not None:
            scale = scale * norm.weight
        bias = shift * scale
        if norm.bias is not None:
            bias = bias + norm.bias
        weight = (conv.weight * scale[:, None, None, None]).contiguous(
            memory_format=torch.channels_last
        )
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.bias = nn.Parameter(bias, requires_grad=False)
    if isinstance(target, SamePadded):
        target.widen()


def _agrees(network: nn.Module, pairs: tuple[_Pair, ...]) -> bool:
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
        with torch.inference_mode():
            expected = trial.forward_features(x)
            _fold(trial, pairs)
            for pair in pairs:
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
