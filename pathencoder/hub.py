"""Names to files on disk: bundled, then a folder, then the catalogue, then any Hub repository.

All Hub traffic is huggingface_hub's: its cache, tokens and environment variables (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE) mean here what they mean everywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder import catalogue, folder, hub_errors, reach, timm_config
from pathencoder.errors import ChecksumError, ConfigError, IncompatibleWeights, OfflineError, PathEncoderError, StoreError, UnknownEncoder
from pathencoder.spec import EncoderSpec

_CANDIDATES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # timm's names, in its order
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)(?:@(\S+))?")
_EXTRAS = (folder.REFERENCE, folder.CARD, folder.LICENCE, folder.METRICS)


@dataclass(frozen=True)
class Located:
    """An encoder's files: its spec, its weights, where they are kept once converted, and the folder with its other files."""

    spec: EncoderSpec
    weights: Path
    folder: Path | None
    converted: Path | None = None  # where a pickle's tensors are kept as safetensors; None: nowhere


@dataclass(frozen=True)
class Access:
    """How the Hub may be reached; None leaves each to huggingface_hub and its environment variables."""

    token: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool | None = None


@dataclass(frozen=True)
class Repository:
    """One Hub repository at one revision, and what is asked of it."""

    repo: str
    revision: str | None
    access: Access
    name: str  # what the user asked for
    gate: str | None = None  # what has to be accepted first, where the catalogue knows
    fetching: bool = False  # for `pathencoder fetch`

    def file(self, filename: str) -> Path:
        """The path of a file in the cache, downloaded if needed. Raises what hub_errors says, NoSuchFile where there is none."""
        from huggingface_hub import constants, hf_hub_download

        given = {key: value for key, value in dataclasses.asdict(self.access).items() if value is not None}
        if not given.get("local_files_only") and not constants.HF_HUB_OFFLINE and not self._is_pinned_here(filename):
            given["local_files_only"] = reach.unreachable(constants.ENDPOINT) is not None
        try:
            with hub_errors.without_attempts():
                return Path(hf_hub_download(self.repo, filename, revision=self.revision, library_name="pathencoder", **given))
        except Exception as error:
            said = hub_errors.explain(error, self, filename)
            raise said from (error if isinstance(said, StoreError) else None)

    def _is_pinned_here(self, filename: str) -> bool:
        """Whether the cache has the file at this commit. Raises NoSuchFile where it knows that the commit has none."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if self.revision is None or not _COMMIT.fullmatch(self.revision):
            return False
        place = Path(self.access.cache_dir) if self.access.cache_dir is not None else None
        cached = try_to_load_from_cache(self.repo, filename, cache_dir=place, revision=self.revision)
        if cached is _CACHED_NO_EXIST:
            raise hub_errors.NoSuchFile(f"{self.repo} has no file {filename}")
        return cached is not None

    def required(self, filename: str) -> Path:
        """As `file`, for one that an encoder cannot do without. Raises ConfigError where there is none."""
        try:
            return self.file(filename)
        except hub_errors.NoSuchFile:
            raise ConfigError(f"{self.repo} has no {filename}: not a whole encoder in timm's hub format or ours") from None

    def first(self, filenames: tuple[str, ...]) -> Path:
        """The first of these files that the repository has; without a network, the first that is in the cache."""
        unreachable: OfflineError | None = None
        for filename in filenames:
            try:
                return self.file(filename)
            except hub_errors.NoSuchFile:
                continue
            except OfflineError as error:
                unreachable = unreachable or error
        raise unreachable or IncompatibleWeights(
            f"{self.repo} holds none of {', '.join(filenames)}: not an encoder, or one whose weights have another name"
        )


def locate(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
) -> Located:
    """An encoder's spec and weights on this machine, downloaded if they are not there yet.

    name: bundled, a folder, a catalogue key, "owner/repo" or "hf-hub:owner/repo", with "@revision" if wanted.
    local_files_only: True: never ask the network; None: as HF_HUB_OFFLINE says.
    Raises UnknownEncoder, GatedEncoder, OfflineError, ChecksumError, IncompatibleWeights, ConfigError or StoreError.
    """
    return _locate(name, revision, Access(token, cache_dir, local_files_only))


def _locate(name: str | os.PathLike[str], revision: str | None, access: Access, *, fetching: bool = False) -> Located:
    place = _folder_of(name, revision)
    if place is not None:
        return _in_folder(place, str(name))
    known, repository = _repository_of(str(name), revision, access)
    repository = dataclasses.replace(repository, fetching=fetching)
    return _unknown_repository(repository) if known is None else _public(known, repository)


def fetch(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Located:
    """As `locate`, and brings card, licence and reference too: all that a machine without network needs."""
    access = Access(token, cache_dir, local_files_only=False)
    located = _locate(name, revision, access, fetching=True)
    if _folder_of(name, revision) is None:
        _, repository = _repository_of(str(name), revision, access)
        pinned = dataclasses.replace(repository, revision=located.spec.revision)
        for filename in _EXTRAS:
            with contextlib.suppress(hub_errors.NoSuchFile):
                pinned.file(filename)
    return located


def describe(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
) -> EncoderSpec:
    """The spec alone: no weights are downloaded; for a Hub repository its small config file is."""
    place = _folder_of(name, revision)
    if place is not None:
        return _spec_of(folder.read_config(place), str(name))
    known, repository = _repository_of(str(name), revision, Access(token, cache_dir, local_files_only))
    if known is not None:
        return _completed(known, repository)
    return _spec_of(folder.parse_config(repository.required(folder.CONFIG)), repository.repo)


def _folder_of(name: str | os.PathLike[str], revision: str | None) -> Path | None:
    """The folder that a name stands for: a bundled encoder's, or a path's (it exists as an encoder, or looks like a path)."""
    own = catalogue.find(name) if isinstance(name, str) else None
    if own in catalogue.bundled() and (own == name or not _is_encoder(Path(name))):
        place = catalogue.BUNDLED / str(own)
    elif isinstance(name, os.PathLike) or name.startswith((".", "/", "~")) or Path(name).is_absolute() or _is_encoder(Path(name)):
        place = Path(name).expanduser()
        if not place.is_dir():
            raise UnknownEncoder(f"there is no folder {place}: give the folder that holds {folder.CONFIG} and {folder.WEIGHTS}")
    else:
        return None
    if revision is not None:
        raise ConfigError(f"revision {revision!r} has no meaning for {name}: it is a folder on this machine, not a Hub repository")
    return place


def _is_encoder(path: Path) -> bool:
    return (path / folder.CONFIG).is_file()


def _in_folder(place: Path, name: str) -> Located:
    spec = _spec_of(folder.read_config(place), name)
    names = spec.files or _CANDIDATES
    weights = next((place / n for n in names if (place / n).is_file()), None)
    if weights is None:
        raise IncompatibleWeights(f"{place} holds no weights: none of {', '.join(names)}. Copy or fetch the encoder again")
    check_sha256(weights, spec.sha256)
    return Located(spec, weights, place)


def _spec_of(config: dict[str, Any], name: str) -> EncoderSpec:
    try:
        return EncoderSpec.from_config(config) if "pathencoder" in config else timm_config.spec_from_timm(config, name)
    except PathEncoderError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # JSON of any shape
        raise ConfigError(f"{name}: its {folder.CONFIG} does not describe an encoder ({error}): fetch or export it again") from error


def _repository_of(name: str, revision: str | None, access: Access) -> tuple[EncoderSpec | None, Repository]:
    """The catalogue's row, if it has one for that name or repository, and the repository at the revision that is asked for."""
    rows = catalogue.catalogue()
    known: EncoderSpec | None
    found = _REPO.fullmatch(name)
    own = catalogue.find(name)
    if own is not None:
        repo, known = rows[own].repo, rows[own]
    elif found:
        repo, known = found[1], _by_repository().get(found[1].lower())
        if revision and found[2] and revision != found[2]:
            raise ConfigError(f"two revisions are asked for: {found[2]!r} in the name and revision={revision!r}")
        revision = revision or found[2]
    else:
        raise UnknownEncoder(f"no encoder named {name!r}{nearest(name)}. `pathencoder list` shows all; a folder or owner/repo works too")
    if known is not None and revision not in (None, known.revision):
        known = dataclasses.replace(known, revision=revision, sha256=None)  # the checksum on record is of the other revision
    return known, Repository(str(repo), known.revision if known else revision, access, name, gate=known.gate if known else None)


@functools.cache
def _by_repository() -> dict[str, EncoderSpec]:
    return {spec.repo.lower(): spec for spec in catalogue.catalogue().values() if spec.repo}


def nearest(name: str) -> str:
    """ "; nearest: a, b", or nothing where no name is near."""
    names = list(catalogue.catalogue())
    near = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), names, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def _public(known: EncoderSpec, repository: Repository) -> Located:
    weights = repository.first(known.files)
    pinned = dataclasses.replace(repository, revision=_commit_of(weights) or repository.revision)
    spec = _completed(dataclasses.replace(known, revision=pinned.revision), pinned)
    return _from_cache(spec, weights, None, known.sha256 if weights.name == Path(known.files[0]).name else None)


def _completed(known: EncoderSpec, repository: Repository) -> EncoderSpec:
    """A row that leaves its preprocessing to a file of the repository, with that file read."""
    if known.config_file is None:
        return known
    return timm_config.with_preprocessing(known, folder.parse_config(repository.required(known.config_file)))


def _unknown_repository(repository: Repository) -> Located:
    config = repository.required(folder.CONFIG)
    pinned = dataclasses.replace(repository, revision=_commit_of(config) or repository.revision)
    content = folder.parse_config(config)
    spec = dataclasses.replace(_spec_of(content, repository.repo), repo=repository.repo, revision=pinned.revision)
    weights = pinned.first(spec.files or _CANDIDATES)
    if "pathencoder" in content:  # reference, card, licence and figures go with the weights, wherever these are saved
        for filename in _EXTRAS:
            with contextlib.suppress(hub_errors.NoSuchFile, OfflineError):
                pinned.file(filename)
    return _from_cache(spec, weights, config.parent, spec.sha256)


def _from_cache(spec: EncoderSpec, weights: Path, place: Path | None, sha256: str | None) -> Located:
    """Weights in huggingface_hub's cache; a pickle that was converted before is replaced by its safetensors copy."""
    beside = _beside(weights)
    if beside is None or weights.suffix == ".safetensors":
        check_sha256(weights, sha256, stamp=beside)
        return Located(spec, weights, place)
    converted = beside.with_name(beside.name + ".safetensors")
    if converted.is_file():
        return Located(spec, converted, place)
    check_sha256(weights, sha256)
    return Located(spec, weights, place, converted)


def _commit_of(cached: Path) -> str | None:
    """The commit of a cached file: .../models--owner--name/snapshots/COMMIT/file."""
    parts = cached.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def _beside(cached: Path) -> Path | None:
    """Our own corner of a repository's cache folder, so that what we keep goes when the repository goes."""
    commit = _commit_of(cached)
    if commit is None:
        return None
    root = Path(*cached.parts[: cached.parts.index("snapshots")])
    return root / "pathencoder" / commit / cached.name


def check_sha256(path: Path, expected: str | None, *, stamp: Path | None = None) -> None:
    """Raises ChecksumError unless the file is the one on record. stamp: remembers that a large file was checked, by size and time."""
    if expected is None:
        return
    state = path.stat()
    line = f"{expected} {state.st_size} {state.st_mtime_ns}"
    mark = stamp.with_name(stamp.name + ".checked") if stamp else None
    if mark is not None and mark.is_file() and mark.read_text() == line:
        return
    found = folder.sha256_of(path)
    if found != expected:
        raise ChecksumError(
            f"{path} is not the file that was published: its sha256 is {found}, on record is {expected}. "
            "Delete it and fetch it again; if it stays so, the publisher changed it"
        )
    if mark is not None:
        with contextlib.suppress(OSError):  # a read-only cache: checked again next time
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(line)
