"""Save an encoder to a folder or to the Hub: a copy of an unchanged one, or a modified one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pathencoder import network as networks
from pathencoder import wrapped
from pathencoder.arrays import Pixels
from pathencoder.errors import ConfigError, PathEncoderError, StoreError
from pathencoder.pretrained import folder as folders
from pathencoder.pretrained import keys
from pathencoder.pretrained.derived import describe
from pathencoder.pretrained.origin import Origin, differences
from pathencoder.runtime import Rows

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def save(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Write the folder of an encoder; errors as in `Encoder.save_pretrained`."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise ConfigError(f"save_directory={folder!r}: the folder to write, './mine' for example")
    origin: Origin | None = encoder.origin
    described = networks.create(encoder.spec)
    state = _state(encoder, described)
    changes = differences(encoder, state)
    if origin is not None and origin.folder is not None and origin.is_ours and not changes:
        folders.copy_folder(origin.folder, folder)
        return
    source = origin.folder if origin is not None and origin.is_ours else None
    reference = folders.read_reference(source) if source is not None else None
    tile = None if reference is None else reference.tile
    spec, card, licence = describe(encoder, changes)
    folders.write_folder(
        folder,
        spec,
        state,
        reference_tile=tile,
        reference_embedding=None if tile is None else _reference(encoder, described, state, tile),
        card=card,
        licence=licence,
    )


def push(
    encoder: Encoder,
    repo_id: str,
    *,
    commit_message: str,
    private: bool | None,
    token: str | None,
    branch: str | None,
    create_pr: bool | None,
) -> str:
    """Upload the encoder's folder to the Hub; arguments and errors as in `Encoder.push_to_hub`."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "encoder"
        save(encoder, folder)
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(
                api.upload_folder(
                    repo_id=repo_id,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                    # files of an earlier encoder would count as files of this one
                    delete_patterns=[
                        name for name in folders.FILES if not (folder / name).exists()
                    ],
                )
            )
        except PathEncoderError:
            raise
        # the client raises errors of its own, requests and httpx, and ValueError
        except Exception as error:
            raise StoreError(
                f"{repo_id} could not be uploaded: {error}. Check that the token has write access"
                " (`hf auth login`, HF_TOKEN, token=)"
            ) from error


def _state(encoder: Encoder, described: networks.Network) -> dict[str, Tensor]:
    """The weights under timm's key names.

    Raises IncompatibleWeights if the spec does not describe the network.
    """
    state = wrapped.plain_state(encoder.network, described.state_dict().keys())
    keys.check(state, described, encoder.spec, "encoder.network")
    return state


def _reference(
    encoder: Encoder, described: networks.Network, state: dict[str, Tensor], tile: Pixels
) -> Rows:
    """The embedding float32 [D] of the saved weights at float32, the dtype in which they load."""
    if encoder.dtype != torch.float32:
        described.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
        )
        encoder = type(encoder)(described, encoder.spec)
    embedding: Rows = encoder.encode(tile, progress=False)[0]
    return embedding
