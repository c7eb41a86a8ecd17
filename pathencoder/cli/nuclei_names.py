"""The names of results in an output folder, and the input that each name belongs to.

1. The name of an input is its path below what the user typed, without the suffix: the file name of
   a file, the path below a given folder of a file in it. Other inputs do not change it.
2. A name belongs to the input whose results have it: every GeoJSON records its source. If a name
   is taken by another input or by other files, the suffix is added, then the folders above: roi,
   roi.png, y/roi, y/roi.png. Nothing is overwritten, and an input finds its results again.
3. One process at a time works on inputs of one usual name: no two take a name at the same time.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pathencoder.cli.names import cut_short, file_stem
from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ConfigError
from pathencoder.features.identity import identify_slide, place_of, slide_stat
from pathencoder.locks import Lock
from pathencoder.nuclei.outputs import SUFFIXES, read_facts
from pathencoder.remote.objects import is_remote

_LOCK_LETTERS = 60  # of a usual name: a file name holds 255 bytes, also with four to a letter


@dataclass(frozen=True)
class Name:
    """The name of an input in an output folder.

    Attributes:
        text: The name.
        note: Why it is not the usual one.
    """

    text: str
    note: str = ""


def choose_name(out: Path, source: Source, suffixes: Sequence[str]) -> Name:
    """The name of the results of an input in an output folder.

    Args:
        out: The folder.
        source: The input.
        suffixes: Of its parts; an image has one, "".

    Returns:
        The name with results of this input, else the first free one.

    Raises:
        ConfigError: All names are taken.
    """
    known = Identity(source)
    options = list(_options(source))
    owners = [[_owner(out, option + suffix) for suffix in suffixes] for option in options]
    for option, those in zip(options, owners, strict=True):
        if any(owner is not None and known.owns(owner) for owner in those):
            return Name(option)
    for option, those in zip(options, owners, strict=True):
        if all(owner is None for owner in those):
            paths = [str(owner["path"]) for owner in owners[0] if owner and "path" in owner]
            first = paths[0] if paths else "files of another origin"
            note = f"named {option}, because {options[0]} is the name of {first} there"
            return Name(option, "" if option == options[0] else note)
    raise ConfigError(f"{source.path}: every name for it is taken in {out}: choose another --out")


@contextmanager
def alone(out: Path, source: Source) -> Iterator[None]:
    """Keep other processes, also of other machines, from the inputs of this usual name.

    Args:
        out: The output folder.
        source: The input.

    Raises:
        Busy: Another process works on one of them.
        StoreError: The folder cannot be written.
    """
    usual = next(_options(source))
    lock = Lock(
        out / f".{usual.replace('/', '_')[-_LOCK_LETTERS:]}.lock",
        f"another process is working on {usual} in {out}: let it finish",
        between_machines=True,
    )
    try:
        yield
    finally:
        lock.release()


class Identity:
    """What identifies an input; its content is hashed once, and only if needed."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Absolute path or URL, size and times, and content hash, as JSON values."""
        found = identify_slide(self._source.here, self._source.origin)
        return {"path": found.path, "stat": list(found.stat), "content": found.content}

    def is_of(self, kept: object) -> bool:
        """Whether results with these facts are of the input in its present state.

        The same path, size and times mean the same content; otherwise the content is compared.
        """
        if not isinstance(kept, Mapping):
            return False
        origin = self._source.origin
        stat = origin.stat if origin else slide_stat(self._source.here)
        if (kept.get("path"), kept.get("stat")) == (place_of(self._source.path), list(stat)):
            return True
        return bool(kept.get("content") == self.facts["content"])

    def owns(self, kept: Mapping[str, Any]) -> bool:
        """Whether results are of this input in any state; a moved file counts as the same.

        A URL counts as one that still exists.
        """
        path = str(kept.get("path"))
        if path == place_of(self._source.path):
            return True
        exists = is_remote(path) or os.path.exists(path)
        return not exists and bool(kept.get("content") == self.facts["content"])


def _options(source: Source) -> Iterator[str]:
    place = place_of(source.path)
    parts = Path(place).parts[1:]
    digest = hashlib.blake2b(place.encode(), digest_size=6).hexdigest()
    for count in range(len(Path(source.key).parts), len(parts) + 1):
        for last in dict.fromkeys([file_stem(source.path), parts[-1]]):
            yield "/".join(cut_short(_writable(p), digest) for p in (*parts[-count:-1], last))


def _writable(name: str) -> str:
    """A name in the encoding of the file system; only old locales cannot encode every name."""
    encoding = sys.getfilesystemencoding()
    return name.encode(encoding, "backslashreplace").decode(encoding)


def _owner(out: Path, name: str) -> dict[str, Any] | None:
    """The source of the results of a name; empty: not recorded; None: there are no results."""
    facts = read_facts(out, name)
    if facts is not None:
        source = facts.get("source")
        return source if isinstance(source, dict) else {}
    return {} if any((out / f"{name}{suffix}").exists() for suffix in SUFFIXES) else None
