"""Find the files of a name: bundled, then a folder, then the catalogue, then a Hub repository."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathencoder.errors import (
    ChecksumError,
    ConfigError,
    IncompatibleWeights,
    OfflineError,
    PathEncoderError,
    UnknownEncoder,
)
from pathencoder.pretrained import (
    catalogue,
    folder,
    graph_files,
    hub,
    hub_errors,
    listed,
    upstream_config,
)
from pathencoder.spec import EncoderSpec
from pathencoder.walk import expanded

# timm's names, in its order
_CANDIDATES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_REPO = re.compile(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)(?:@(\S+))?")
_EXTRAS = (folder.REFERENCE, folder.CARD, folder.LICENCE, folder.METRICS)


@dataclass(frozen=True)
class Located:
    """The files of an encoder.

    Attributes:
        spec: Its description.
        weights: The file with its weights.
        folder: The folder with its other files; None without one.
        converted: Where a pickle's tensors are to be saved as safetensors; None: nowhere.
    """

    spec: EncoderSpec
    weights: Path
    folder: Path | None
    converted: Path | None = None


def locate(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    force_download: bool = False,
    graph: bool = False,
) -> Located:
    """Find an encoder's spec and weights on this machine; download what is missing.

    Args:
        name: A bundled encoder, a folder, a catalogue name, "owner/repo" or "hf-hub:owner/repo",
            optionally with "@revision".
        revision: A branch, tag or commit of the repository.
        token: As in huggingface_hub.
        cache_dir: The cache of downloads.
        local_files_only: True: do not use the network; None: as HF_HUB_OFFLINE says.
        force_download: Whether to download what is in the cache again.
        graph: Whether to download the ONNX file of a Hub repository too, where a library is
            installed that runs it.

    Returns:
        The files.

    Raises:
        UnknownEncoder: Nothing has that name.
        GatedEncoder: The publisher's terms have to be accepted first.
        OfflineError: The files are not on this machine and the Hub does not answer.
        ChecksumError: A file is not the one that was published.
        IncompatibleWeights: The encoder has no weights file.
        ConfigError: An argument, or the encoder's description, cannot be used.
        StoreError: The cache cannot be written.
    """
    access = hub.Access(token, cache_dir, local_files_only, force_download)
    return _locate(name, revision, access, graph=graph and graph_files.is_runnable())


def _locate(
    name: str | os.PathLike[str],
    revision: str | None,
    access: hub.Access,
    *,
    graph: bool,
    fetching: bool = False,
) -> Located:
    place = _folder_of(name, revision)
    if place is not None:
        return _in_folder(place, str(name))
    with _naming_folder(name):
        known, repository = _repository_of(str(name), revision, access)
        repository = dataclasses.replace(repository, fetching=fetching)
        if known is None:
            return _unknown_repository(repository, graph=graph)
    return _public(known, repository)


def fetch(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Located:
    """As `locate`, for a machine without network: downloads card, licence, reference and graph."""
    access = hub.Access(token, cache_dir, local_files_only=False)
    located = _locate(name, revision, access, graph=True, fetching=True)
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
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    force_download: bool = False,
) -> EncoderSpec:
    """The spec of an encoder; downloads at most the config file of a Hub repository.

    Arguments and errors as in `locate`.
    """
    place = _folder_of(name, revision)
    if place is not None:
        return _spec_of(folder.read_config(place), str(name))
    access = hub.Access(token, cache_dir, local_files_only, force_download)
    with _naming_folder(name):
        known, repository = _repository_of(str(name), revision, access)
        if known is None:
            return _spec_in(repository.required(folder.CONFIG), repository)
    return _completed(known, repository)


def _folder_of(name: str | os.PathLike[str], revision: str | None) -> Path | None:
    """The folder of a bundled encoder, or of a path (that exists or looks like one); else None."""
    own = catalogue.find(name) if isinstance(name, str) else None
    if own in catalogue.bundled() and (own == name or not _is_encoder(Path(name))):
        place = catalogue.BUNDLED / str(own)
    elif (
        isinstance(name, os.PathLike)
        or name.startswith((".", "/", "~"))
        or Path(name).is_absolute()
        or _is_encoder(Path(name))
    ):
        place = expanded(name)
        if not place.is_dir():
            raise UnknownEncoder(
                f"no folder {place}: give the folder that holds {folder.CONFIG} and"
                f" {folder.WEIGHTS}"
            )
    else:
        return None
    if revision is not None:
        raise ConfigError(
            f"revision {revision!r} does not apply to {name}: it is a folder on this machine, not"
            " a Hub repository. Leave the revision out"
        )
    return place


def _is_encoder(path: Path) -> bool:
    return (path / folder.CONFIG).is_file()


@contextlib.contextmanager
def _naming_folder(name: str | os.PathLike[str]) -> Iterator[None]:
    """Add to the error of a name that is not found that a folder of this name holds no encoder."""
    try:
        yield
    except (UnknownEncoder, OfflineError) as error:
        place = Path(name)
        if not place.is_dir():
            raise
        inside = next(iter(sorted(place.glob(f"*/{folder.CONFIG}"))), None)
        advice = f" {inside.parent.as_posix()} in it may be the encoder." if inside else ""
        raise type(error)(
            f"the folder {place} is here, but holds no {folder.CONFIG}, so that the name was looked"
            f" up elsewhere.{advice} {error}"
        ) from error


def _in_folder(place: Path, name: str) -> Located:
    spec = _spec_of(folder.read_config(place), name)
    names = spec.files or _CANDIDATES
    weights = next((place / n for n in names if (place / n).is_file()), None)
    if weights is None:
        raise IncompatibleWeights(
            f"{place} holds no weights (looked for {', '.join(names)}). Copy or fetch the encoder"
            " again"
        )
    check_sha256(weights, spec.sha256)
    return Located(spec, weights, place)


def _spec_of(config: dict[str, Any], name: str) -> EncoderSpec:
    try:
        return (
            EncoderSpec.from_config(config)
            if "pathencoder" in config
            else upstream_config.spec_from_timm(config, name)
        )
    except PathEncoderError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # JSON of any shape
        raise ConfigError(
            f"{name}: its {folder.CONFIG} does not describe an encoder ({error}): fetch or export"
            " it again"
        ) from error


def _repository_of(
    name: str, revision: str | None, access: hub.Access
) -> tuple[EncoderSpec | None, hub.Repository]:
    """The catalogue's row for a name or repository, if any, and the repository at the revision."""
    rows = catalogue.catalogue()
    known: EncoderSpec | None
    found = _REPO.fullmatch(name)
    own = catalogue.find(name)
    if own is not None:
        repo, known = rows[own].repo, rows[own]
    elif found:
        repo, known = found[1], _by_repository().get(found[1].lower())
        if revision and found[2] and revision != found[2]:
            raise ConfigError(
                f"two revisions: {found[2]!r} in the name and revision={revision!r}. Give one"
            )
        revision = revision or found[2]
    elif other := listed.find(name):
        raise UnknownEncoder(other.why_not)
    else:
        raise UnknownEncoder(
            f"no encoder named {name!r}{catalogue.nearest(name)}. `pathencoder list` shows all; a"
            " folder or owner/repo works too"
        )
    if known is not None and revision not in (None, known.revision):
        # the recorded checksum is that of the other revision
        known = dataclasses.replace(known, revision=revision, sha256=None)
    return known, hub.Repository(
        str(repo),
        known.revision if known else revision,
        access,
        name,
        gate=known.gate if known else None,
    )


@functools.cache
def _by_repository() -> dict[str, EncoderSpec]:
    return {spec.repo.lower(): spec for spec in catalogue.catalogue().values() if spec.repo}


def _public(known: EncoderSpec, repository: hub.Repository) -> Located:
    weights = repository.first(known.files)
    pinned = dataclasses.replace(repository, revision=hub.commit_of(weights) or repository.revision)
    spec = _completed(dataclasses.replace(known, revision=pinned.revision), pinned)
    sha256 = known.sha256 if weights.name == Path(known.files[0]).name else None
    return _from_cache(spec, weights, None, sha256, repository.access)


def _completed(known: EncoderSpec, repository: hub.Repository) -> EncoderSpec:
    """A row of the catalogue with the preprocessing of the repository's config file, if named."""
    if known.config_file is None:
        return known
    return upstream_config.with_preprocessing(
        known, folder.parse_config(repository.required(known.config_file))
    )


def _unknown_repository(repository: hub.Repository, *, graph: bool) -> Located:
    config = repository.required(folder.CONFIG)
    pinned = dataclasses.replace(repository, revision=hub.commit_of(config) or repository.revision)
    spec = _spec_in(config, repository)
    weights = pinned.first(spec.files or _CANDIDATES)
    # reference, card, licence and metrics are saved together with the weights
    if "pathencoder" in folder.parse_config(config):
        for filename in _EXTRAS:
            with contextlib.suppress(hub_errors.NoSuchFile, OfflineError):
                pinned.file(filename)
        if graph:
            graph_files.fetch(pinned, spec)
    return _from_cache(spec, weights, config.parent, spec.sha256, repository.access)


def _spec_in(config: Path, repository: hub.Repository) -> EncoderSpec:
    """The spec in a config file of a repository, at the commit of the file."""
    spec = _spec_of(folder.parse_config(config), repository.repo)
    revision = hub.commit_of(config) or repository.revision
    return dataclasses.replace(spec, repo=repository.repo, revision=revision)


def _from_cache(
    spec: EncoderSpec, weights: Path, place: Path | None, sha256: str | None, access: hub.Access
) -> Located:
    """Weights in huggingface_hub's cache, or the safetensors copy of a converted pickle."""
    beside = _beside(weights)
    if beside is None or weights.suffix == ".safetensors":
        check_sha256(weights, sha256, stamp=beside)
        return Located(spec, weights, place)
    converted = beside.with_name(beside.name + ".safetensors")
    if converted.is_file() and not access.force_download:
        return Located(spec, converted, place)
    check_sha256(weights, sha256)
    return Located(spec, weights, place, converted)


def _beside(cached: Path) -> Path | None:
    """A path inside the repository's cache folder, deleted together with the repository."""
    place = hub.place_of(cached)
    if place is None:
        return None
    return place.repository / "pathencoder" / place.commit / cached.name


def check_sha256(path: Path, expected: str | None, *, stamp: Path | None = None) -> None:
    """Check the sha256 of a file.

    Args:
        path: The file.
        expected: Its recorded sha256; None: nothing is checked.
        stamp: Where the result is cached, by size and modification time.

    Raises:
        ChecksumError: The file is not the recorded one.
    """
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
            f"{path} is not the file that was published: its sha256 is {found}, the recorded one is"
            f" {expected}. Delete it and fetch it again (from the Hub: force_download=True); if"
            " that does not help, the publisher changed it"
        )
    if mark is not None:
        with contextlib.suppress(OSError):  # a read-only cache: checked again next time
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(line)
