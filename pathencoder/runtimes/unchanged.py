"""Whether a network computes what the weights compute that it was loaded with.

A file that was exported stands for those weights. A network that was changed since (trained
further, adapted, wrapped, with hooks) computes something else, and runs in torch.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

from torch import nn

from pathencoder.folding import Modules, consists_of, has_hooks, modules_of
from pathencoder.pretrained import origin as origins
from pathencoder.pretrained.folder import sha256_of
from pathencoder.pretrained.origin import Origin
from pathencoder.spec import EncoderSpec
from pathencoder.state_dicts import digest_of
from pathencoder.wrapped import is_wrapped


@dataclass(frozen=True)
class _Known:
    """What was found of a network, and by what it is known as the same."""

    digest: str
    modules: Modules
    change: str


_known: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def change_of(network: nn.Module, origin: Origin | None) -> str:
    """What was changed since a network was loaded; "" for an unchanged one.

    Weights and modules are compared with those that were loaded once, later with what they were
    then. A module counts as changed when another one takes its place.
    """
    if origin is None:
        return "it was not loaded from a file"
    if is_wrapped(network):
        return "its network is inside another module"
    if has_hooks(network):
        return "hooks are registered on its network"
    state = network.state_dict()
    digest = digest_of(state)
    with _lock:
        known = _known.get(network)
        if known is None or known.digest != digest or not consists_of(network, known.modules):
            found = origins.differences(network, origin.spec, origin, state)
            known = _known[network] = _Known(digest, modules_of(network), "; ".join(found))
    return known.change


def weights_sha256(spec: EncoderSpec, origin: Origin | None) -> str | None:
    """The sha256 that stands for an encoder's weights; None where there is none.

    Of an encoder whose publisher gives none it is that of the file that was read.
    """
    if spec.sha256 is not None or origin is None or not origin.weights.is_file():
        return spec.sha256
    return sha256_of(origin.weights)
