"""Rows of images on disk, by encoder and image content, so that a second fit encodes nothing.

    CACHE/features-1/KEY/about.json         the encoder and how it was read
    CACHE/features-1/KEY/HASH.safetensors   `contents` uint8 [N, 16] and `rows` float32 [N, D]

KEY is a hash of everything that decides the numbers: the weights in memory, the readout and its
views, the preprocessing, the scale of the images and the precision. A file is written under a
temporary name, renamed to the hash of its bytes and never changed: any number of processes may read
and write, and damage is found when it is read. The folder's number is the version of this format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import StoreError
from pathencoder.files import make_folder, whole_file
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.walk import expanded

log = logging.getLogger(__name__)
_threads = threading.Lock()

VARIABLE = "PATHENCODER_CACHE"
_VERSION = "features-1"
_FOLDERS = re.compile(r"features-\d+")
_ABOUT = "about.json"
_MANY = 32  # files of one encoder that are merged into one
_Found = dict[bytes, NDArray[np.float32]]


@dataclass(frozen=True)
class Entry:
    """What the cache holds of one encoder and way of reading it.

    Attributes:
        folder: Where.
        encoder: Name of the encoder.
        about: What decided the numbers; empty where that cannot be read.
        rows: Number of rows; None where the format is of another version.
        size: Bytes.
        version: Of the format, "features-1".
    """

    folder: Path
    encoder: str
    about: dict[str, Any]
    rows: int | None
    size: int
    version: str

    @property
    def current(self) -> bool:
        """Whether this version of the package reads it."""
        return self.version == _VERSION


@dataclass(frozen=True)
class FeatureCache:
    """Rows on disk below a folder, which need not exist."""

    root: Path

    @classmethod
    def default(cls) -> FeatureCache:
        """The cache of this user: PATHENCODER_CACHE, or the platform's folder for caches."""
        return cls(cache_folder())

    def read(self, record: EncoderRecord, contents: Sequence[bytes]) -> _Found:
        """The rows of these contents that the cache holds, by content."""
        wanted = {content for content in contents if content}
        found: _Found = {}
        for file in _files(self._folder(record)):
            if len(found) == len(wanted):
                break
            for content, row in _read(file, record.dim):
                if content in wanted:
                    found[content] = row
        return found

    def write(
        self, record: EncoderRecord, contents: Sequence[bytes], rows: Sequence[NDArray[np.float32]]
    ) -> None:
        """Keep rows. A disk that accepts none is a warning: the rows are only not kept."""
        try:
            with _threads:  # temporary names are those of the process
                self._write(record, contents, rows)
        except (StoreError, OSError) as error:
            log.warning("features are not kept: %s (%s chooses another folder)", error, VARIABLE)

    def entries(self) -> list[Entry]:
        """What the cache holds, by encoder."""
        found = []
        for version in _below(self.root):
            if _FOLDERS.fullmatch(version.name):
                found += [_entry(folder, version.name) for folder in _below(version)]
        return sorted(found, key=lambda entry: (entry.encoder, str(entry.folder)))

    def clear(self, encoder: str | None = None) -> list[Entry]:
        """Delete the rows of an encoder, or all of them, of every version.

        Args:
            encoder: Its name. None: all.

        Returns:
            What was deleted.

        Raises:
            StoreError: Something cannot be deleted.
        """
        gone = [e for e in self.entries() if encoder is None or e.encoder == encoder]
        for entry in gone:
            try:
                shutil.rmtree(entry.folder)
            except FileNotFoundError:  # another process was first
                continue
            except OSError as error:
                raise StoreError(f"cannot delete {entry.folder}: {error.strerror}") from error
        return gone

    def _folder(self, record: EncoderRecord) -> Path:
        return self.root / _VERSION / _key(record)

    def _write(
        self, record: EncoderRecord, contents: Sequence[bytes], rows: Sequence[NDArray[np.float32]]
    ) -> None:
        folder = make_folder(self._folder(record))
        about = folder / _ABOUT
        if not about.exists():
            with whole_file(about) as temporary:
                temporary.write_text(json.dumps(_about(record), indent=2), encoding="utf-8")
        _save(folder, np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 16), np.stack(rows))
        files = _files(folder)
        if len(files) > _MANY:
            _merge(folder, files, record.dim)


def cache_folder() -> Path:
    """The folder of this user's cache."""
    given = os.environ.get(VARIABLE)
    if given:
        return expanded(given)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local")) / "pathencoder/Cache"
    if sys.platform == "darwin":
        return home / "Library/Caches/pathencoder"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "pathencoder"


def _about(record: EncoderRecord) -> dict[str, Any]:
    """What decides the numbers, and the encoder's name."""
    left_out = {"repo", "folder", "revision", "weights"}
    if record.readout is None:  # the published rule: rows that are kept stay valid, as of one view
        left_out.add("readout")
    if record.views == 1:
        left_out.add("views")
    return {k: v for k, v in dataclasses.asdict(record).items() if k not in left_out}


def _key(record: EncoderRecord) -> str:
    """Of what decides the numbers; the name does not."""
    facts = {k: v for k, v in _about(record).items() if k not in ("name", "sha256")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _below(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir())
    return []


def _files(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("."))
    return []


def _save(folder: Path, contents: NDArray[np.uint8], rows: NDArray[np.float32]) -> Path:
    from safetensors.numpy import save

    data = save({"contents": contents, "rows": np.ascontiguousarray(rows, np.float32)})
    final = folder / f"{_hash(data)}.safetensors"
    with whole_file(final) as temporary:
        temporary.write_bytes(data)
    return final


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _read(file: Path, width: int) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """Contents and rows of a file; a damaged file is deleted, since its rows can be made again."""
    from safetensors.numpy import load

    try:
        data = file.read_bytes()
    except OSError:  # merged or cleared by another process meanwhile
        return
    if _hash(data) != file.stem:
        log.warning("%s is damaged: deleted, its images are encoded again", file)
        with contextlib.suppress(OSError):
            file.unlink()
        return
    arrays = load(data)
    contents, rows = arrays["contents"], arrays["rows"]
    if rows.ndim == 2 and rows.shape[1] == width:
        for content, row in zip(contents, rows, strict=True):
            yield content.tobytes(), row


def _merge(folder: Path, files: Sequence[Path], width: int) -> None:
    """Write the rows of several files as one, then delete them."""
    rows: _Found = {}
    for file in files:
        rows.update(_read(file, width))
    if not rows:
        return
    contents = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)
    merged = _save(folder, contents, np.stack(list(rows.values())))
    for file in files:
        if file != merged:
            with contextlib.suppress(OSError):
                file.unlink()


def _entry(folder: Path, version: str) -> Entry:
    about: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        loaded = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        about = loaded if isinstance(loaded, dict) else {}
    size = sum(map(_size, folder.rglob("*")))
    rows = sum(map(_count, _files(folder))) if version == _VERSION else None
    name = str(about.get("name") or folder.name)
    return Entry(folder, name, about, rows, size, version)


def _size(path: Path) -> int:
    """Bytes of a file; 0 for a folder, and for a file that another process has just removed."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _count(file: Path) -> int:
    """Rows of a file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            return int(opened.get_slice("rows").get_shape()[0])
    except (OSError, SafetensorError):
        return 0
