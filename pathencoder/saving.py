"""An encoder to a folder, or to the Hub, with everything that came with it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pathencoder import folder as folders
from pathencoder.errors import PathEncoderError, StoreError

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def save(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Write the folder of an encoder. What lay in the folder that it came from goes along: card, licence, the reference tile
    with the embedding that these weights give, and, where the weights are still the same, their figures (metrics.json)."""
    source = encoder.folder
    reference = folders.read_reference(source) if source is not None else None
    tile = reference.tile if reference is not None else None
    written = folders.write_folder(
        folder,
        encoder.spec,
        encoder.network.state_dict(),
        reference_tile=tile,
        reference_embedding=None if tile is None else encoder.encode(tile, progress=False)[0],
        card=_text(source, folders.CARD),
        licence=_text(source, folders.LICENCE),
    )
    figures = source / folders.METRICS if source is not None else None
    if figures is not None and figures.is_file() and written.sha256 == encoder.spec.sha256:
        shutil.copy(figures, Path(folder) / folders.METRICS)


def push(encoder: Encoder, repo: str, *, private: bool | None, token: str | None, message: str) -> str:
    """Upload the encoder's folder to the Hub; the address of the commit. Raises StoreError with the Hub's answer."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "encoder"
        save(encoder, folder)
        api = HfApi(token=token)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message))
        except PathEncoderError:
            raise
        except Exception as error:  # the client raises its own errors, requests', httpx's and ValueError
            raise StoreError(
                f"{repo} could not be uploaded: {error}. Is the token one that may write (`hf auth login`, HF_TOKEN, token=)?"
            ) from error


def _text(source: Path | None, name: str) -> str | None:
    path = source / name if source is not None else None
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else None
