"""One repository of the Hugging Face Hub: its files, in the local cache.

All traffic goes through huggingface_hub: its cache, tokens and environment variables (HF_HOME,
HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE) have their usual meaning.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from pathencoder.errors import ConfigError, IncompatibleWeights, OfflineError, StoreError
from pathencoder.pretrained import hub_errors, reach
from pathencoder.pretrained.hub_request import Access, Request
from pathencoder.walk import expanded

__all__ = ["Access", "Place", "Repository", "commit_of", "place_of"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository(Request):
    """One Hub repository at one revision, and its files."""

    def file(self, filename: str) -> Path:
        """The path of a file in the cache, downloaded if needed.

        Raises:
            NoSuchFile: The repository has no such file.
            PathEncoderError: The download failed; see `hub_errors.explain`.
        """
        from huggingface_hub import constants, hf_hub_download

        given = {
            key: value
            for key, value in dataclasses.asdict(self.access).items()
            if value is not None
        }
        if self.access.force_download:
            self._refuse_offline(filename)
        elif (
            not given.get("local_files_only")
            and not constants.HF_HUB_OFFLINE
            and not self._is_pinned_here(filename)
        ):
            given["local_files_only"] = reach.unreachable(constants.ENDPOINT) is not None
        try:
            with hub_errors.without_attempts():
                return Path(
                    hf_hub_download(
                        self.repo,
                        filename,
                        revision=self.revision,
                        library_name="pathencoder",
                        **given,
                    )
                )
        except Exception as error:
            explained = hub_errors.explain(error, self, filename)
            raise explained from (error if isinstance(explained, StoreError) else None)

    def _refuse_offline(self, filename: str) -> None:
        """Raises OfflineError where nothing can be downloaded: the client has no clear error."""
        from huggingface_hub import constants

        off = self.access.local_files_only or constants.HF_HUB_OFFLINE
        why = (
            "the network is disabled (HF_HUB_OFFLINE or local_files_only)"
            if off
            else reach.unreachable(constants.ENDPOINT)
        )
        if why is not None:
            raise OfflineError(
                f"{self.name}: {filename} of {self.repo} cannot be downloaded again: {why}. Leave"
                " force_download out to use what is in the cache"
            )

    def _is_pinned_here(self, filename: str) -> bool:
        """Whether the cache has the file at this commit.

        Raises NoSuchFile where the cache records that the commit has none.
        """
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if self.revision is None or not _COMMIT.fullmatch(self.revision):
            return False
        place = expanded(self.access.cache_dir) if self.access.cache_dir is not None else None
        cached = try_to_load_from_cache(
            self.repo, filename, cache_dir=place, revision=self.revision
        )
        if cached is _CACHED_NO_EXIST:
            raise hub_errors.NoSuchFile(f"{self.repo} has no file {filename}")
        return cached is not None

    def required(self, filename: str) -> Path:
        """As `file`, for a file that every encoder has.

        Raises:
            ConfigError: The repository has no such file.
            PathEncoderError: The download failed; see `hub_errors.explain`.
        """
        try:
            return self.file(filename)
        except hub_errors.NoSuchFile:
            raise ConfigError(
                f"{self.repo} has no {filename}: not a complete encoder in timm's hub format or"
                " pathencoder's. `pathencoder list` names the encoders that load by name"
            ) from None

    def first(self, filenames: tuple[str, ...]) -> Path:
        """The first of these files that the repository has; offline, the first in the cache.

        Raises:
            OfflineError: None of them is in the cache, and the Hub does not answer.
            IncompatibleWeights: The repository has none of them.
        """
        unreachable: OfflineError | None = None
        for filename in filenames:
            try:
                return self.file(filename)
            except hub_errors.NoSuchFile:
                continue
            except OfflineError as error:
                unreachable = unreachable or error
        raise unreachable or IncompatibleWeights(
            f"{self.repo} holds none of {', '.join(filenames)}: not an encoder, or one whose"
            " weights have another name"
        )


@dataclass(frozen=True)
class Place:
    """Where a file lies in the cache: REPOSITORY/snapshots/COMMIT/file.

    Attributes:
        repository: The folder of the repository, models--owner--name.
        commit: The commit.
    """

    repository: Path
    commit: str


def place_of(cached: Path) -> Place | None:
    """The place of a file in the cache; None of a file elsewhere.

    The cache itself may lie below folders of these names.
    """
    for snapshot in cached.parents:
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            return Place(repository, snapshot.name)
    return None


def commit_of(cached: Path) -> str | None:
    """The commit of a cached file."""
    place = place_of(cached)
    return None if place is None else place.commit
