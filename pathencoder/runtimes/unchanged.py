"""Whether a network computes what the weights compute that it was loaded with.

A file that was exported stands for those weights. A network that was changed since (trained
further, adapted, wrapped, with hooks) computes something else, and runs in torch.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from dataclasses import dataclass

from torch import nn

from pathencoder.folding import Modules, consists_of, has_hooks, modules_of
from pathencoder.pretrained import origin as origins
from pathencoder.pretrained.folder import sha256_of
from pathencoder.pretrained.origin import Origin
from pathencoder.spec import EncoderSpec
from pathencoder.weights_digest import digest_of_network
from pathencoder.wrapped import bare, is_wrapped


@dataclass(frozen=True)
class _Known:
    """What was found of a network, and by what it is known as the same.

    Attributes:
        digest: Of its weights.
        modules: That it consists of.
        change: What was changed since it was loaded; "" for an unchanged one.
        sha256: That stands for the weights that were loaded, as `_sha256_of` gives it. It is that
            of the file at the time when it was compared: another may take its place.
    """

    digest: str
    modules: Modules
    change: str
    sha256: str | None


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
    return _compared(network, origin).change


def sha256_in_use(network: nn.Module, origin: Origin | None) -> str | None:
    """The sha256 that stands for the weights that a network computes with.

    Returns:
        That of the file that was loaded, also where only a wrapper was put around the network, or
        its weights were rounded to another dtype, which is recorded as the precision. Of a network
        that was changed in another way, the digest of its weights. None where the commit on the
        Hub alone names the weights.

    Raises:
        ConfigError: The module is not a timm network.
    """
    inner: nn.Module = bare(network)
    change = change_of(inner, origin)
    if origin is None or (change and origins.rounded_to(change) is None):
        return digest_of_network(inner)
    return _compared(inner, origin).sha256


def stand_in(copy: nn.Module, network: nn.Module, origin: Origin | None) -> None:
    """Take a copy that computes the same for the network that it was made of.

    Args:
        copy: The copy, such as `folding.for_inference` makes it; it may be the network itself.
        network: The network.
        origin: What it was loaded from.
    """
    if copy is network or origin is None or change_of(network, origin):
        return
    known = _compared(network, origin)
    digest = digest_of_network(copy)
    with _lock:
        _known[copy] = dataclasses.replace(known, digest=digest, modules=modules_of(copy))


def weights_sha256(spec: EncoderSpec, origin: Origin | None) -> str | None:
    """The sha256 that stands for an encoder's weights; None where there is none.

    Of an encoder whose publisher gives none it is that of the file that was read.
    """
    if spec.sha256 is not None or origin is None or not origin.weights.is_file():
        return spec.sha256
    return sha256_of(origin.weights)


def _compared(network: nn.Module, origin: Origin) -> _Known:
    """The comparison of a network with what was loaded, made again where it is another by now."""
    digest = digest_of_network(network)
    with _lock:
        known = _known.get(network)
        if known is None or known.digest != digest or not consists_of(network, known.modules):
            found = origins.differences(network, origin.spec, origin, network.state_dict())
            known = _known[network] = _Known(
                digest, modules_of(network), "; ".join(found), _sha256_of(origin)
            )
    return known


def _sha256_of(origin: Origin) -> str | None:
    """As `weights_sha256`; None where the commit on the Hub names the weights."""
    return origin.spec.sha256 if origin.spec.revision else weights_sha256(origin.spec, origin)
