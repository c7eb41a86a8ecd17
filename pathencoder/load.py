"""`load_encoder`: a name to a network with its weights, ready to encode; `verify`: is it the one that was published?"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pathencoder import catalogue, checkpoint, folder, hub, keys, network
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.origin import Origin
from pathencoder.runtime import pick_device, pick_dtype
from pathencoder.spec import EncoderSpec

_COSINE = {torch.float32: 0.9999, torch.float64: 0.9999}  # what `verify` asks for; half precision gives a little away
_COSINE_HALF = 0.999


def load_encoder(
    name: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    device: str | torch.device | int = "auto",
    dtype: torch.dtype | str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    pretrained: bool = True,
) -> Encoder:
    """An encoder in eval mode: bundled, from a folder, from the catalogue, or from any Hub repository in timm's format or ours.

    name: None (the bundled default, no network), a name of `list_encoders()`, a folder (one that exists or begins with . / ~),
    "owner/repo" or "hf-hub:owner/repo", with "@revision" if wanted. revision: a branch, tag or commit of the repository.
    device: "auto" takes cuda, then mps, then cpu. dtype: of the parameters; None: float32; also by name,
    "bf16", "fp16".
    token, cache_dir, local_files_only: as in huggingface_hub, whose variables (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE, ...) hold too.
    pretrained: False gives the same network with random weights, to train from nothing.

    Raises UnknownEncoder, GatedEncoder, OfflineError, ChecksumError, UnsafeWeights, IncompatibleWeights, ConfigError or StoreError.
    """
    name = _checked(name, revision)
    wanted = pick_dtype(dtype)
    there = pick_device(device)
    where: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    encoder = _with_weights(hub.locate(name, **where)) if pretrained else _with_random_weights(hub.describe(name, **where))
    encoder.to(device=there, dtype=wanted)
    if not network.has_tokens(encoder.network):
        # 1.2 to 1.8 times as fast for convolutions on a CPU
        encoder.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder


def _checked(name: object, revision: object) -> str | os.PathLike[str]:
    """The name that is asked for: the default's for None, and only for that."""
    if name is None:
        return catalogue.DEFAULT
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise ConfigError(f"name={name!r}: a name of `pathencoder list`, a folder, or owner/repo; leave it out for {catalogue.DEFAULT}")
    if revision is not None and not isinstance(revision, str):
        raise ConfigError(f"revision={revision!r}: a branch, tag or commit, as text")
    return name


def _with_weights(located: hub.Located) -> Encoder:
    state = checkpoint.read(located.weights)
    if located.converted is not None:
        checkpoint.keep(state, located.converted)
    net = network.create(located.spec)
    renamed = keys.without_classifier(keys.to_timm(state, located.spec), net)
    keys.check(renamed, net, located.spec, located.weights)
    net.load_state_dict(renamed, strict=True, assign=True)
    _say_licence(located.spec)
    encoder = Encoder(net.eval(), located.spec)
    encoder.origin = Origin(located.spec, located.weights, located.folder)
    return encoder


def _with_random_weights(spec: EncoderSpec) -> Encoder:
    """The spec keeps what the network and its input need, and nothing that its trained weights earned."""
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
        layout="ctranspath" if spec.layout == "ctranspath" else "timm",  # it names the network's stem too
        verified=False,
        reference="",
        note="",
    )
    return Encoder(network.create(plain, random=True), plain)


def _say_licence(spec: EncoderSpec) -> None:
    if "-research" in f"{spec.name} {spec.base_model}":  # also one that was made from it
        _warn_once(f"{spec.name}: its weights are licensed {spec.licence}, for research only. {catalogue.DEFAULT} may be used by anyone")


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=5)


@dataclass(frozen=True)
class Verification:
    """How an encoder's embedding of its reference tile compares with the one that was published with it.

    cosine, and the largest absolute difference over the D values; ok: cosine is at least `limit`.
    """

    name: str
    cosine: float
    max_abs: float
    limit: float

    @property
    def ok(self) -> bool:
        """Whether this encoder gives here what it gave where it was published."""
        return self.cosine >= self.limit


def verify(encoder: Encoder) -> Verification:
    """Embed the reference tile that came with the encoder, by `encode` with its defaults as a user would, and compare.

    Raises ConfigError for an encoder without one.
    """
    reference = folder.read_reference(encoder.folder) if encoder.folder is not None else None
    if reference is None:
        raise ConfigError(f"{encoder.spec.name} has no {folder.REFERENCE}: there is nothing to compare its embeddings with")
    if reference.embedding.shape != (encoder.spec.dim,):
        raise ConfigError(
            f"{encoder.spec.name}: its {folder.REFERENCE} has {reference.embedding.size} values instead of {encoder.spec.dim}"
        )
    found = encoder.encode(reference.tile, progress=False)[0].astype(np.float64)
    expected = reference.embedding.astype(np.float64)
    cosine = float(found @ expected / max(float(np.linalg.norm(found) * np.linalg.norm(expected)), 1e-12))
    limit = _COSINE.get(encoder.dtype, _COSINE_HALF)
    return Verification(encoder.spec.name, cosine, float(np.abs(found - expected).max()), limit)
