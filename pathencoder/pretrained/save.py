"""Save an encoder to a folder or to the Hub: a copy of an unchanged one, or a modified one."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pathencoder import network as networks
from pathencoder import wrapped
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError
from pathencoder.pretrained import catalogue, keys
from pathencoder.pretrained import folder as folders
from pathencoder.pretrained.derived import Story, describe
from pathencoder.pretrained.load import Loaded
from pathencoder.pretrained.origin import Origin, differences, structure_of
from pathencoder.pretrained.push import upload
from pathencoder.runtime import Rows

log = logging.getLogger(__name__)

Encode = Callable[[nn.Module, Pixels], Rows]


def save(
    encoder: Loaded,
    folder: str | os.PathLike[str],
    encode: Encode,
    *,
    story: Story | None = None,
) -> None:
    """Write the folder of an encoder; errors as in `Encoder.save_pretrained`.

    Args:
        encoder: Network, spec and origin as they are now.
        folder: The folder to write.
        encode: Gives the embedding float32 [D] of a tile by a network of the encoder's spec.
        story: How it was made from another one, for its card.
    """
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise ConfigError(f"save_directory={folder!r}: the folder to write, './mine' for example")
    origin = encoder.origin
    described = networks.create(encoder.spec)
    state = _state(encoder, described)
    changes = differences(encoder.network, encoder.spec, origin, state)
    if not wrapped.is_wrapped(encoder.network) and _differ(encoder.network, described):
        log.warning(
            "the modules of the network are not those of %s: a folder holds weights and the name of"
            " the architecture, so that loading it gives other rows",
            encoder.spec.architecture,
        )
    if origin is not None and origin.folder is not None and origin.is_ours and not changes:
        folders.copy_folder(origin.folder, folder)
        return
    tile = _reference_tile(origin)
    spec, card, licence = describe(encoder.spec, origin, changes, story)
    folders.write_folder(
        folder,
        spec,
        state,
        reference_tile=tile,
        reference_embedding=encode(_as_loaded(encoder.network, described, state), tile),
        card=card,
        licence=licence,
    )


def _reference_tile(origin: Origin | None) -> Pixels:
    """The tile whose embedding `verify` compares: the parent's, or the default encoder's."""
    own = origin.folder if origin is not None and origin.is_ours else None
    found = None if own is None else folders.read_reference(own)
    found = found or folders.read_reference(catalogue.BUNDLED / catalogue.DEFAULT)
    assert found is not None
    return found.tile


def _differ(network: nn.Module, described: nn.Module) -> bool:
    return structure_of(network) != structure_of(described)


def push(
    encoder: Loaded,
    repo_id: str,
    encode: Encode,
    *,
    commit_message: str,
    private: bool | None,
    token: str | bool | None,
    branch: str | None,
    create_pr: bool | None,
    allow_patterns: list[str] | str | None,
    ignore_patterns: list[str] | str | None,
    delete_patterns: list[str] | str | None,
) -> str:
    """Upload the encoder's folder to the Hub; arguments and errors as in `Encoder.push_to_hub`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "encoder"
        save(encoder, folder, encode)
        return upload(
            folder,
            repo_id,
            folders.FILES,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            delete_patterns=delete_patterns,
        )


def _state(encoder: Loaded, described: networks.Network) -> dict[str, Tensor]:
    """The weights under timm's key names.

    Raises IncompatibleWeights if the spec does not describe the network.
    """
    state = wrapped.plain_state(encoder.network, described.state_dict().keys())
    keys.check(state, described, encoder.spec, "encoder.network")
    return state


def _as_loaded(
    network: nn.Module, described: networks.Network, state: dict[str, Tensor]
) -> nn.Module:
    """The network of the saved weights at float32, the dtype in which they load."""
    if next(network.parameters()).dtype == torch.float32:
        return network
    described.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
    )
    loaded: nn.Module = described
    return loaded
