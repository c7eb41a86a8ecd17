"""What every fitted head inherits: its folder, and its repository on the Hub."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Unpack

from pathencoder.errors import ConfigError
from pathencoder.heads import store
from pathencoder.pretrained.mixin import PushOptions
from pathencoder.pretrained.push import upload
from pathencoder.walk import expanded


class SavedHead(ABC):
    """A head that can be saved and uploaded."""

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the head's folder, which `load_head` reads: safetensors and JSON.

        Args:
            folder: Created if it does not exist; other files in it are kept.

        Returns:
            The folder.

        Raises:
            StoreError: It cannot be written.
        """
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ConfigError(f"folder={folder!r}: the folder to write, './head' for example")
        place = expanded(folder)
        store.write(self._content(for_hub=False), place)
        return place

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Upload what `save` writes to the Hub, without paths of this machine.

        Args:
            repo_id: "owner/name", created if it does not exist.
            **options: Those of `Encoder.push_to_hub`.

        Returns:
            The URL of the commit.

        Raises:
            StoreError: The upload failed; the message holds the Hub's answer.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "head"
            store.write(self._content(for_hub=True), folder)
            given = {"commit_message": "Upload head", **options}
            return upload(folder, repo_id, store.FILES, **given)  # type: ignore[arg-type]

    @abstractmethod
    def _content(self, *, for_hub: bool) -> store.Content:
        """What is written; `for_hub` leaves out paths of this machine."""
