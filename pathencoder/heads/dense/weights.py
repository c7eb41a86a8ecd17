"""The weights of a dense head: what is saved of them, and the network that is made of them again.

A head on a frozen encoder saves its decoder. One whose encoder was trained along saves both, and
needs no other file, unless it has classes of cells: the encoder as it was embeds these.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.heads.dense.network import DenseNetwork
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.pretrained import derived, keys
from pathencoder.runtime import pick_device
from pathencoder.spec import EncoderSpec
from pathencoder.wrapped import plain_state

Arrays = dict[str, NDArray[Any]]
_DECODER, _ENCODER, CELLS = "decoder.", "encoder.", "cells."  # prefixes of names of arrays


@dataclass(frozen=True)
class Saved:
    """The files of a head until its network is built.

    Attributes:
        arrays: All of them.
        spec: Of its own encoder; None where the encoder is not in the file.
        device: For the network.
        cells: What is recorded of the classes of points; None without.
    """

    arrays: Mapping[str, NDArray[Any]]
    spec: EncoderSpec | None
    device: str
    cells: Mapping[str, Any] | None = None

    def encoder_of(self, record: EncoderRecord) -> Encoder:
        """Its own encoder, else a copy of the recorded one.

        Raises:
            HeadMismatch: The recorded one cannot be loaded, or is another one by now.
        """
        if self.spec is None:
            return own_copy(record.load(self.device))
        return adapted_encoder(self.arrays, self.spec).to(pick_device(self.device))

    def part(self, prefix: str) -> Arrays:
        """The arrays of a part, under their own names."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.arrays.items()
            if name.startswith(prefix)
        }


def own_copy(encoder: Encoder) -> Encoder:
    """A copy of an encoder, laid out in memory as `load_encoder` does it.

    The layout decides the last bits of the result, so every dense head uses the same.

    Raises:
        ConfigError: Its weights are not float32.
    """
    if encoder.dtype != torch.float32:
        raise ConfigError(
            f"the encoder's weights are {str(encoder.dtype).removeprefix('torch.')}, dense heads"
            " need float32: load it without dtype="
        )
    return _laid_out(Encoder(copy.deepcopy(encoder.network), encoder.spec))


def adapted_spec(encoder: Encoder, kind: str) -> EncoderSpec:
    """The description of an encoder that is trained along with a head; it names its parent.

    Raises:
        IncompatibleWeights: The network is not the one that the spec describes, so that it could
            not be built again.
        ConfigError: It holds adapters that are not merged.
    """
    described = networks.create(encoder.spec)
    state = plain_state(encoder.network, described.state_dict().keys())
    keys.check(state, described, encoder.spec, "encoder.network")
    changes = [f"its weights were trained along with a {kind} head"]
    spec, _, _ = derived.describe(encoder.spec, encoder.origin, changes)
    return dataclasses.replace(spec, sha256=None, files=(), layout=spec.timm_layout)


def arrays_of(network: DenseNetwork, *, adapted: bool) -> Arrays:
    """The arrays that are saved."""
    parts: list[tuple[str, Mapping[str, Tensor]]] = [(_DECODER, network.decoder.state_dict())]
    if adapted:
        own = network.encoder
        names = networks.create(own.spec).state_dict().keys()
        parts.append((_ENCODER, plain_state(own.network, names)))
    return {
        f"{prefix}{name}": value.detach().cpu().contiguous().numpy()
        for prefix, state in parts
        for name, value in state.items()
    }


def adapted_encoder(arrays: Mapping[str, NDArray[Any]], spec: EncoderSpec) -> Encoder:
    """The encoder of a head that saved it.

    Raises:
        IncompatibleWeights: The arrays are not those of the spec.
    """
    network = networks.create(spec)
    state = _state(arrays, _ENCODER)
    keys.check(state, network, spec, "the encoder of the head")
    network.load_state_dict(state, strict=True, assign=True)
    return _laid_out(Encoder(network, spec))


def load_decoder(network: DenseNetwork, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put saved weights into the decoder of a network.

    Raises:
        ConfigError: The arrays are of another decoder.
    """
    try:
        network.decoder.load_state_dict(_state(arrays, _DECODER))
    except RuntimeError as error:
        raise ConfigError(
            f"the decoder of the head does not fit its encoder ({str(error).splitlines()[0]}):"
            " save or download the head again"
        ) from error


def _state(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.array(value))  # a copy that may be written
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _laid_out(encoder: Encoder) -> Encoder:
    if not networks.has_tokens(encoder.network):
        networks.order_for_convolutions(encoder.network)
    module: nn.Module = encoder.network
    module.requires_grad_()
    return encoder
