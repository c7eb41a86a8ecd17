"""The names of results in an output folder, and whose a name is. The rule, in one place:

1. The name of an input is its path below what the user typed, without the suffix: of a file its
   name, of a file in a folder that was given the path below that folder. What else is given does
   not matter.
2. A name belongs to the input whose results it has: every GeoJSON says what it was made from.
   Another input of that name, and a name that files of other origin have, gets its suffix, then
   the folders above it: roi, roi.png, y/roi, y/roi.png. Nothing is overwritten, and an input
   finds its results again under the name that they have.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pathencoder.cli.names import cut_short, file_stem
from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ConfigError
from pathencoder.features.identity import identify_slide, place_of, slide_stat
from pathencoder.nuclei.outputs import SUFFIXES, read_facts


@dataclass(frozen=True)
class Name:
    """The name that an input has in an output folder. note: why it is not the usual one."""

    text: str
    note: str = ""


def choose_name(out: Path, source: Source, suffixes: Sequence[str]) -> Name:
    """The name under which an input's results lie, or will lie, in an output folder.

    Args:
        out: The folder.
        source: The input.
        suffixes: Of its parts; an image has one, "".

    Returns:
        The name that holds results of this input, else the first that is free.

    Raises:
        ConfigError: All names are taken.
    """
    known = Identity(source.path)
    options = list(_options(source))
    owners = [[_owner(out, option + suffix) for suffix in suffixes] for option in options]
    for option, those in zip(options, owners, strict=True):
        if any(owner is not None and known.owns(owner) for owner in those):
            return Name(option)
    for option, those in zip(options, owners, strict=True):
        if all(owner is None for owner in those):
            paths = [str(owner["path"]) for owner in owners[0] if owner and "path" in owner]
            first = paths[0] if paths else "files that are not of this command"
            note = f"called {option}, since {options[0]} is the name of {first} there"
            return Name(option, "" if option == options[0] else note)
    raise ConfigError(f"{source.path}: every name for it is taken in {out}: choose another --out")


class Identity:
    """What an input is known by; its content is looked at once, and only where that is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Absolute path, size and times, and content hash, as JSON values."""
        found = identify_slide(self._path)
        return {"path": found.path, "stat": list(found.stat), "content": found.content}

    def is_of(self, kept: object) -> bool:
        """Whether results with these facts were made from the input as it is now.

        The same path, size and times mean the same content; else the content decides.
        """
        if not isinstance(kept, Mapping):
            return False
        place, stat = place_of(self._path), list(slide_stat(self._path))
        if (kept.get("path"), kept.get("stat")) == (place, stat):
            return True
        return bool(kept.get("content") == self.facts["content"])

    def owns(self, kept: Mapping[str, Any]) -> bool:
        """Whether results are of this input, as it is or as it was; a moved file is the same."""
        there = str(kept.get("path"))
        if there == place_of(self._path):
            return True
        return not os.path.exists(there) and bool(kept.get("content") == self.facts["content"])


def _options(source: Source) -> Iterator[str]:
    place = place_of(source.path)
    parts = Path(place).parts[1:]
    digest = hashlib.blake2b(place.encode(), digest_size=6).hexdigest()
    for count in range(len(Path(source.key).parts), len(parts) + 1):
        for last in dict.fromkeys([file_stem(source.path), parts[-1]]):
            yield "/".join(cut_short(_writable(p), digest) for p in (*parts[-count:-1], last))


def _writable(name: str) -> str:
    """A name that the file system's encoding can write; all but old locales can write any."""
    encoding = sys.getfilesystemencoding()
    return name.encode(encoding, "backslashreplace").decode(encoding)


def _owner(out: Path, name: str) -> dict[str, Any] | None:
    """What a name's results were made from; empty: they do not say; None: there are none."""
    facts = read_facts(out, name)
    if facts is not None:
        source = facts.get("source")
        return source if isinstance(source, dict) else {}
    return {} if any((out / f"{name}{suffix}").exists() for suffix in SUFFIXES) else None
