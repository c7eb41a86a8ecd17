"""`save_pretrained` and `push_to_hub`, with the arguments of huggingface_hub's mixin class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict, Unpack

from pathencoder.errors import ConfigError
from pathencoder.pretrained import save
from pathencoder.pretrained.load import Loaded

if TYPE_CHECKING:
    from torch import nn

    from pathencoder.arrays import Pixels
    from pathencoder.runtime import Rows


class PushOptions(TypedDict, total=False):
    """The options of `push_to_hub`, which `save_pretrained(push_to_hub=True)` passes on."""

    commit_message: str
    private: bool | None
    token: str | bool | None
    branch: str | None
    create_pr: bool | None
    allow_patterns: list[str] | str | None
    ignore_patterns: list[str] | str | None
    delete_patterns: list[str] | str | None


class SavingMixin:
    """What `Encoder` inherits; it provides `_loaded` and `_embed`."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Unpack[PushOptions],
    ) -> str | None:
        """Write the encoder's folder, which `load_encoder` and `from_pretrained` read.

        An unchanged encoder is copied: the same files with the same bytes. One whose weights, dtype
        or spec were changed gets a card that says what it was modified from and how, another name
        (NAME-modified, unless the spec has a new one) and a new reference embedding; the metrics of
        its parent are left out and `spec.verified` is false. The encoder itself does not change.

        Args:
            save_directory: Created if it does not exist; other files in it are kept.
            repo_id: The repository for `push_to_hub`. None: the name of the folder.
            push_to_hub: Whether to upload the encoder too.
            **push_to_hub_kwargs: Options of `push_to_hub`.

        Returns:
            The URL of the commit with `push_to_hub=True`, else None.

        Raises:
            StoreError: The folder cannot be written, or the upload failed.
            ConfigError: The network holds adapters, or an option of `push_to_hub` is given without
                it.
            IncompatibleWeights: The network is not the one that the spec describes.
        """
        if not push_to_hub and (push_to_hub_kwargs or repo_id is not None):
            given = sorted([*push_to_hub_kwargs, *([] if repo_id is None else ["repo_id"])])
            raise ConfigError(f"{', '.join(given)}: only for an upload, with push_to_hub=True")
        save.save(self._loaded(), save_directory, self._embed)
        if not push_to_hub:
            return None
        name = os.path.basename(os.path.abspath(os.fspath(save_directory)))
        return self.push_to_hub(repo_id or name, **push_to_hub_kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload encoder",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hub; replaces an encoder that is there.

        Args:
            repo_id: "owner/name", created if it does not exist.
            commit_message: Message of the commit.
            private: Whether a new repository is private. None: the default of the account.
            token: As in huggingface_hub.
            branch: The branch to commit to, created if it does not exist.
            create_pr: Whether to open a pull request instead of committing to the branch.
            allow_patterns: Upload only the files that match.
            ignore_patterns: Leave out the files that match.
            delete_patterns: Also delete the files of the repository that match. Files of an
                earlier encoder are always deleted.

        Returns:
            The URL of the commit.

        Raises:
            StoreError: The upload failed; the message holds the Hub's answer.
        """
        options: PushOptions = {
            "commit_message": commit_message,
            "private": private,
            "token": token,
            "branch": branch,
            "create_pr": create_pr,
            "allow_patterns": allow_patterns,
            "ignore_patterns": ignore_patterns,
            "delete_patterns": delete_patterns,
        }
        return save.push(self._loaded(), repo_id, self._embed, **options)

    def _loaded(self) -> Loaded:
        raise NotImplementedError

    def _embed(self, network: nn.Module, tile: Pixels) -> Rows:
        raise NotImplementedError
