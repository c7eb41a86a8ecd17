"""Load a network with its weights by name, on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any, TypedDict

import torch

from pathencoder import network
from pathencoder.errors import ConfigError
from pathencoder.network import Network
from pathencoder.pretrained import catalogue, keys, locate, weight_files
from pathencoder.pretrained.origin import Origin, structure_of
from pathencoder.spec import UNKNOWN_LICENCE, EncoderSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, in eval mode.

    Attributes:
        network: On the CPU, in the dtype that the weights were published in.
        spec: The description of the encoder.
        origin: The files that it was read from; None for random weights.
    """

    network: Network
    spec: EncoderSpec
    origin: Origin | None


class Options(TypedDict, total=False):
    """The options that `load_encoder` and `Encoder.from_pretrained` share."""

    revision: str | None
    device: str | torch.device | int
    dtype: torch.dtype | str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool | None
    force_download: bool


def load(
    name: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    force_download: bool = False,
    pretrained: bool = True,
    graph: bool = False,
) -> Loaded:
    """Load a network with its weights; arguments and errors as in `pathencoder.load_encoder`.

    `graph`, as in `locate`: whether to download the ONNX file of a Hub repository too.
    """
    name = _checked(name, revision)
    where: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    if pretrained:
        return _with_weights(locate.locate(name, **where, graph=graph))
    return _with_random_weights(locate.describe(name, **where))


def _checked(name: object, revision: object) -> str | os.PathLike[str]:
    """The name of the encoder to load; the default's only for None."""
    if name is None:
        return catalogue.DEFAULT
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise ConfigError(
            f"name={name!r}: a name of `pathencoder list`, a folder, or owner/repo; leave it out"
            f" for {catalogue.DEFAULT}"
        )
    if revision is not None and not isinstance(revision, str):
        raise ConfigError(f"revision={revision!r}: a branch, tag or commit, as text")
    return name


def _with_weights(located: locate.Located) -> Loaded:
    state = weight_files.read(located.weights)
    if located.converted is not None:
        weight_files.keep(state, located.converted)
    net = network.create(located.spec)
    renamed = keys.without_classifier(keys.to_timm(state, located.spec), net)
    keys.check(renamed, net, located.spec, located.weights)
    net.load_state_dict(renamed, strict=True, assign=True)
    _say_terms(located.spec)
    origin = Origin(located.spec, located.weights, located.folder, structure_of(net.eval()))
    return Loaded(net, located.spec, origin)


def _with_random_weights(spec: EncoderSpec) -> Loaded:
    """The network with random weights; the spec loses everything that describes its weights."""
    plain = dataclasses.replace(
        spec,
        name=f"{spec.name}-random",
        summary=f"{spec.architecture} with random weights, read as {spec.name} is",
        training="none: random weights",
        licence="none (random weights)",
        commercial=True,
        gate=None,
        repo=None,
        revision=None,
        files=(),
        sha256=None,
        config_file=None,
        layout=spec.timm_layout,
        verified=False,
        reference="",
        note="",
    )
    return Loaded(network.create(plain, random=True).eval(), plain, None)


def _say_terms(spec: EncoderSpec) -> None:
    """Log licence and commercial use, once for each encoder; warn of what must not be missed."""
    use = "commercial use allowed" if spec.commercial else "no commercial use"
    restricted = not spec.commercial and spec.licence != UNKNOWN_LICENCE
    level = logging.WARNING if restricted else logging.INFO
    _log_once(level, f"{spec.name}: licence of the weights: {spec.licence}; {use}")
    if spec.expects:
        _warn_once(f"{spec.name} expects {spec.expects}: pathencoder does not do this")


@functools.cache
def _log_once(level: int, text: str) -> None:
    _log.log(level, text)


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=6)
