"""The names of results in an output folder, and the input that each name belongs to.

1. The name of an input is its path below what the user typed, without the suffix: the file name of
   a file, the path below a given folder of a file in it. Other inputs do not change it.
2. A name belongs to the input whose results have it: every GeoJSON records its source. If a name,
   or a region of that name, is taken by another input, or the name by other files, the suffix is
   added, then the folders above: roi, roi.png, y/roi, y/roi.png. Nothing is overwritten, and an
   input finds its results again.
3. One process at a time works on inputs of one usual name: no two take a name at the same time.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pathencoder.cli.names import cut_short, file_stem
from pathencoder.cli.nuclei_sources import Source
from pathencoder.errors import ConfigError
from pathencoder.features.identity import (
    earlier_content,
    identify_slide,
    place_of,
    slide_stat,
)
from pathencoder.locks import Lock
from pathencoder.nuclei.outputs import SUFFIXES, read_facts
from pathencoder.remote.objects import is_remote

_LOCK_LETTERS = 60  # of a usual name: a file name holds 255 bytes, also with four to a letter
_OF_REGION = re.compile(r"(.+)(_x\d+_y\d+(?:_w\d+_h\d+)?)\.(?:geojson|overlay\.png)", re.DOTALL)


@dataclass(frozen=True)
class Name:
    """The name of an input in an output folder.

    Attributes:
        text: The name.
        note: Why it is not the usual one.
    """

    text: str
    note: str = ""


class Results:
    """The results in an output folder, and the inputs that they were made from.

    Args:
        out: The folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._listed = cache(_regions_in)

    def owner(self, name: str) -> dict[str, Any] | None:
        """The source of the results of a name; empty: not recorded; None: there are none."""
        facts = read_facts(self.out, name)
        if facts is not None:
            return source_of(facts)
        return {} if any((self.out / f"{name}{end}").exists() for end in SUFFIXES) else None

    def owners(self, name: str, *, anew: bool) -> Iterator[dict[str, Any]]:
        """The recorded sources of a name and of all of its regions.

        Args:
            name: The name.
            anew: List the folder again, as another process may have written there. Otherwise it
                is listed once: doing so for each of 100,000 images would take longer than they do.
        """
        file = self.out / name
        regions = (_regions_in if anew else self._listed)(file.parent)
        for suffix in ("", *sorted(regions.get(file.name, ()))):
            facts = read_facts(self.out, name + suffix)
            # a whole image may be named like a region of another: s_x0_y0.png next to s.svs
            if facts and _is_region(facts) == bool(suffix) and (source := source_of(facts)):
                yield source


def choose_name(results: Results, source: Source, suffixes: Sequence[str]) -> Name:
    """The name of the results of an input in an output folder.

    Args:
        results: In the folder.
        source: The input.
        suffixes: Of its parts; an image has one, "".

    Returns:
        The name with results of this input, else the first free one. Results of two inputs never
        have one name, also where their regions differ.

    Raises:
        ConfigError: All names are taken.
    """
    known = Identity(source)
    options = list(_options(source))
    if not suffixes:  # nothing will be written
        return Name(options[0])
    owners = [
        [owner for suffix in suffixes if (owner := results.owner(option + suffix)) is not None]
        for option in options
    ]
    for option, those in zip(options, owners, strict=True):
        if those and all(map(known.owns, those)):
            return Name(option)
    first = ""
    for option, those in zip(options, owners, strict=True):
        other = _first_other(known, chain(those, results.owners(option, anew=any(suffixes))))
        if other is None:
            note = f"named {option}, because {options[0]} is the name of {first} there"
            return Name(option, note if first else "")
        first = first or str(other.get("path", "files of another origin"))
    raise ConfigError(
        f"{source.path}: every name for it is taken in {results.out}: choose another --out"
    )


def _first_other(known: Identity, owners: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The first owner that is not this input."""
    return next((owner for owner in owners if not known.owns(owner)), None)


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

    @cached_property
    def _contents(self) -> tuple[str | None, ...]:
        """Its content hash, and that of earlier versions."""
        return self.facts["content"], earlier_content(self._source.here)

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
        return self._has(kept)

    def owns(self, kept: Mapping[str, Any]) -> bool:
        """Whether results are of this input in any state; a moved file counts as the same.

        A URL counts as one that still exists.
        """
        path = str(kept.get("path"))
        if path == place_of(self._source.path):
            return True
        exists = is_remote(path) or os.path.exists(path)
        return not exists and self._has(kept)

    def _has(self, kept: Mapping[str, Any]) -> bool:
        content = kept.get("content")
        return content is not None and content in self._contents


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


def _regions_in(folder: Path) -> dict[str, set[str]]:
    """The suffixes of the regions with results in a folder, by the name before them."""
    found: dict[str, set[str]] = {}
    for file in os.listdir(folder) if folder.is_dir() else []:
        if match := _OF_REGION.fullmatch(file):
            found.setdefault(match[1], set()).add(match[2])
    return found


def source_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The source that the facts of results state; empty if they state none."""
    source = facts.get("source")
    return source if isinstance(source, dict) else {}


def _is_region(facts: Mapping[str, Any]) -> bool:
    settings = facts.get("settings")
    return isinstance(settings, Mapping) and settings.get("region") is not None
