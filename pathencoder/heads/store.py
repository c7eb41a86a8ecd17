"""The files of a head, in a folder or a Hub repository.

| file | content |
|---|---|
| config.json | kind, classes, encoder, settings, sha256 of the arrays |
| model.safetensors | the arrays of the model |
| report.json | what it reaches on images that it was not fitted on |
| README.md | the same for reading |
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pathencoder._version import __version__
from pathencoder.errors import (
    ChecksumError,
    ConfigError,
    OfflineError,
    StoreError,
    UnknownEncoder,
)
from pathencoder.files import give_usual_permissions
from pathencoder.pretrained import folder as folders
from pathencoder.pretrained import hub, hub_errors
from pathencoder.walk import expanded, printable

FORMAT = "pathencoder-head"
VERSION = 1
_CONFIG, _ARRAYS, _REPORT, _CARD = "config.json", "model.safetensors", "report.json", "README.md"
# config.json last: until then the old one, with the old sha256, does not match new arrays
FILES = (_REPORT, _CARD, _ARRAYS, _CONFIG)
_AGAIN = "save or download the head again"
BESIDE = "head"  # the folder of a head beside the files of its encoder
_REPO = re.compile(rf"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)(/{BESIDE})?(?:@(\S+))?")


@dataclasses.dataclass(frozen=True)
class Content:
    """What is written of a head.

    Attributes:
        config: The content of config.json; format, version and sha256 are added.
        arrays: The arrays of the model, by name.
        reports: Report by name, as JSON values; None where there is none.
        card: The text of the README.
    """

    config: dict[str, Any]
    arrays: dict[str, Any]
    reports: dict[str, Any]
    card: str


@dataclasses.dataclass(frozen=True)
class Files:
    """The content of a head's files.

    Attributes:
        config: The parsed config.json, whose format and version are known.
        arrays: The arrays of the model.
        report: The parsed report.json; empty without one.
    """

    config: dict[str, Any]
    arrays: dict[str, Any]
    report: dict[str, Any]


class Reported(Protocol):
    """A report of a head."""

    def text(self) -> str:
        """It for reading."""
        ...

    def to_json(self) -> dict[str, Any]:
        """It as JSON values."""
        ...


def reports_of(
    folds: Reported | None, held_out: Reported | None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of report.json; `notes` are those of a fit without folds."""
    reports = {"folds": folds, "held_out": held_out}
    found: dict[str, Any] = {name: one and one.to_json() for name, one in reports.items()}
    return {**found, "notes": list(notes)} if notes else found


def text_of(folds: Reported | None, held_out: Reported | None, notes: Sequence[str] = ()) -> str:
    """The reports as a card shows them; `notes` are those of a fit without folds."""
    reports = [report.text() for report in (folds, held_out) if report is not None]
    shown = "\n\n".join(reports) or "Nothing was evaluated."
    return "\n".join([shown, *(f"Note: {note}" for note in notes)])


def write(content: Content, folder: Path) -> None:
    """Write a head's folder; other files in it are kept.

    Args:
        content: Of the head.
        folder: Created if it does not exist.

    Raises:
        StoreError: The folder cannot be written, or holds files of something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    refuse_others(folder)
    try:
        with folders.draft_of(folder) as draft:
            save_file(content.arrays, draft / _ARRAYS)
            give_usual_permissions(draft / _ARRAYS)
            config = {
                "format": FORMAT,
                "format_version": VERSION,
                **content.config,
                "sha256": folders.sha256_of(draft / _ARRAYS),
                "versions": {"pathencoder": __version__},
            }
            _write_json(draft / _CONFIG, config)
            _write_json(draft / _REPORT, content.reports)
            (draft / _CARD).write_text(content.card, encoding="utf-8")
            folders.publish(draft, folder, FILES)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"cannot write the head {folder}: {error}. Free space there, or choose another folder"
        ) from error


def read(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
) -> Files:
    """Read a head's files from a folder or a repository.

    Raises:
        ConfigError: There is no head of that name, or it is of a newer version.
        ChecksumError: The arrays are not those that were saved.
        PathEncoderError: The download failed.
    """
    from safetensors.numpy import load_file

    place = _folder(name, revision)
    if place is not None:
        config, arrays, report = (place / file for file in (_CONFIG, _ARRAYS, _REPORT))
    else:
        access = hub.Access(token, cache_dir, local_files_only)
        config, arrays, report = _from_hub(str(name), revision, access)
    parsed = _checked(config, name)
    if not arrays.is_file() or folders.sha256_of(arrays) != parsed.get("sha256"):
        raise ChecksumError(
            f"{printable(arrays)} is not the file that was saved with this head: {_AGAIN}"
        )
    reports = folders.parse_config(report, _AGAIN) if report.is_file() else {}
    return Files(parsed, load_file(arrays), reports)


def card(front: Sequence[str], title: str, parts: Sequence[str]) -> str:
    """The README of a head.

    Args:
        front: Lines of the front matter that the Hub reads, beside the common ones.
        title: The heading.
        parts: Paragraphs of Markdown.

    Returns:
        Its text.
    """
    lines = ["library_name: pathencoder", "tags: [pathology, histopathology]", *front]
    whole = "\n".join(["---", *lines, "---", f"# {title}"])
    return "\n\n".join([whole, *parts]) + "\n"


def is_head(folder: Path) -> bool:
    """Whether a folder holds a head."""
    try:
        return folders.read_config(folder).get("format") == FORMAT
    except ConfigError:
        return False


def refuse_others(folder: Path) -> None:
    """Refuse to write a head into a folder of something else.

    Raises:
        StoreError: It holds files that would be replaced.
    """
    if (folder / _CONFIG).exists() and not is_head(folder):
        raise StoreError(
            f"{folder} holds a {_CONFIG} that is not of a head (an encoder?): choose another folder"
        )
    folders.refuse_foreign(folder, FILES, "a head", ours=is_head(folder))


def _folder(name: str | os.PathLike[str], revision: str | None) -> Path | None:
    """The folder of a name that is a path; None for a repository."""
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise ConfigError(f"path_or_repo={name!r}: a head's folder or owner/repo")
    path = expanded(name)
    looks_local = os.fspath(name).startswith((".", "/", "~")) or not isinstance(name, str)
    if revision is None and (path.exists() or looks_local):
        if not path.is_dir():
            raise ConfigError(f"no such folder: {printable(path)}")
        return path
    return None


def _from_hub(name: str, revision: str | None, access: hub.Access) -> tuple[Path, Path, Path]:
    found = _REPO.fullmatch(name)
    if found is None:
        raise ConfigError(f"no such folder, and not a repository (owner/name): {name}")
    repository = hub.Repository(found[1], revision or found[3], access, name)
    folder = f"{BESIDE}/" if found[2] else ""
    try:
        config = repository.file(folder + _CONFIG)
        pinned = dataclasses.replace(
            repository, revision=hub.commit_of(config) or repository.revision
        )
        arrays = pinned.file(folder + _ARRAYS)
    except hub_errors.NoSuchFile as error:
        raise ConfigError(f"{name} holds no head of pathencoder: {error}") from error
    except (OfflineError, UnknownEncoder) as error:
        raise type(error)(f"no such folder: {name}. As a repository of the Hub: {error}") from error
    try:
        return config, arrays, pinned.file(folder + _REPORT)
    except hub_errors.NoSuchFile:
        return config, arrays, config.with_name(_REPORT)


def _checked(file: Path, name: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of config.json, of a format and version that are known."""
    if not file.is_file():
        raise ConfigError(f"{printable(name)} holds no {_CONFIG}: not the folder of a head")
    config = folders.parse_config(file, _AGAIN)
    if config.get("format") != FORMAT:
        raise ConfigError(
            f"{printable(name)} holds no head but something else (an encoder?): heads are what"
            " pathencoder.fit(...).save(folder) writes. That of an adapted encoder lies beside it:"
            f" give {printable(name)}/{BESIDE}"
        )
    version = config.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        raise ConfigError(
            f"{printable(name)} is a head of version {version}, this package reads {VERSION}: pip"
            " install -U pathencoder"
        )
    return config


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
