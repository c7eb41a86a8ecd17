"""Whether a network computes what the weights compute that it was loaded with.

A file that was exported stands for those weights. A network that was changed since (trained
further, adapted, wrapped, with hooks) computes something else, and runs in torch.
"""

from __future__ import annotations

import threading
import weakref

import torch
from torch import Tensor, nn

from pathencoder.folding import has_hooks
from pathencoder.pretrained import origin as origins
from pathencoder.pretrained.folder import sha256_of
from pathencoder.pretrained.origin import Origin
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import is_wrapped

_Print = tuple[int, ...]
_known: weakref.WeakKeyDictionary[nn.Module, tuple[_Print, str]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def change_of(network: nn.Module, origin: Origin | None) -> str:
    """What was changed since a network was loaded; "" for an unchanged one.

    The weights are compared with their file once, later with what they were then.
    """
    if origin is None:
        return "it was not loaded from a file"
    if is_wrapped(network):
        return "its network is inside another module"
    if has_hooks(network):
        return "hooks are registered on its network"
    state = network.state_dict()
    print_now = tuple(_print_of(tensor) for tensor in state.values())
    with _lock:
        print_then, change = _known.get(network, (None, ""))
        if print_then != print_now:
            found = origins.differences(network, origin.spec, origin, state)
            change = "; ".join(found)
            _known[network] = (print_now, change)
    return change


def weights_sha256(spec: EncoderSpec, origin: Origin | None) -> str | None:
    """The sha256 that stands for an encoder's weights; None where there is none.

    Of an encoder whose publisher gives none it is that of the file that was read.
    """
    if spec.sha256 is not None or origin is None or not origin.weights.is_file():
        return spec.sha256
    return sha256_of(origin.weights)


def _print_of(tensor: Tensor) -> int:
    """A number that changes with any value of the tensor."""
    plain = tensor.detach()
    if plain.dtype == torch.float32:
        plain = plain.view(torch.int32)
    return int(plain.sum(dtype=torch.int64))
