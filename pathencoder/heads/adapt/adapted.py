"""An adapted encoder: what `pathencoder.adapt` returns."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from pathencoder.errors import ConfigError
from pathencoder.heads.adapt import checkpoint as checkpoints
from pathencoder.heads.adapt import save
from pathencoder.heads.adapt.lora import Adapter
from pathencoder.heads.adapt.report import AdaptationReport
from pathencoder.heads.classifier import Classifier
from pathencoder.pretrained.mixin import PushOptions
from pathencoder.pretrained.push import upload
from pathencoder.spec import EncoderSpec

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


@dataclass(frozen=True)
class Adapted:
    """An encoder that was adapted to labelled images.

    Attributes:
        encoder: With new weights and the readout and preprocessing of its parent. Any verb takes
            it, as it takes its parent.
        head: A linear head on this encoder, fitted on the embeddings of the whole train part.
        report: The frozen encoder beside the adapted one, on images that neither was fitted on.
        parent: The description of the encoder that it was adapted from.
        adapter: The files of the LoRA adapter; None for another way of adapting.
        checkpoint: The folder of checkpoints, which `save` deletes; None without one.
    """

    encoder: Encoder
    head: Classifier
    report: AdaptationReport
    parent: EncoderSpec
    adapter: Adapter | None = None
    checkpoint: Path | None = None

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a folder that `load_encoder` takes.

        | file | content |
        |---|---|
        | config.json, model.safetensors and others | the encoder, with its adapters merged |
        | head/ | the head: `load_head`, `pathencoder predict` |
        | adapter/ | the LoRA adapter alone in peft's format, for the parent's network |
        | adaptation.json | the report |
        | adapted_to.safetensors | content hashes of the images that it was adapted to |

        Args:
            folder: Created if it does not exist; other files in it are kept.

        Returns:
            The folder.

        Raises:
            StoreError: It cannot be written, or holds a head or the parent of this encoder.
        """
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ConfigError(f"folder={folder!r}: the folder to write, './adapted' for example")
        place = Path(folder).expanduser()
        save.save(self, place)
        checkpoints.remove(self.checkpoint)
        return place

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Upload what `save` writes to the Hub, in one commit; the card names the parent.

            adapted.push_to_hub("me/mine")
            encoder = pathencoder.load_encoder("me/mine")
            head = pathencoder.load_head("me/mine/head")

        Args:
            repo_id: "owner/name", created if it does not exist. What another encoder left there is
                replaced.
            **options: Those of `Encoder.push_to_hub`.

        Returns:
            The URL of the commit.

        Raises:
            StoreError: The upload failed; the message says what the repository holds.
            OfflineError: The network is disabled.
            ConfigError: `repo_id` has no owner.
        """
        if not isinstance(repo_id, str) or repo_id.count("/") != 1:
            raise ConfigError(
                f"repo_id={repo_id!r}: 'owner/name', which the head names as the place of its"
                " encoder"
            )
        given: PushOptions = {"commit_message": "Upload adapted encoder", **options}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "encoder"
            save.save(self, folder, save.Place(repo_id, options.get("branch")))
            return upload(folder, repo_id, save.FILES, **given)
