"""Remote slides of `pathencoder nuclei`: a copy of each here, and what an earlier run did.

After a slide, a hidden file of the output folder holds its version and the names of its results.
The same command again finds it and downloads nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathencoder.cli.nuclei_sources import Source
from pathencoder.cli.remote_slides import copied, origin_of, say_download
from pathencoder.files import make_folder, whole_file
from pathencoder.nuclei.outputs import read_finished
from pathencoder.remote.staging import Staging

_FOLDER = ".remote"  # in --out


@dataclass(frozen=True)
class Earlier:
    """What an earlier run made of a remote slide.

    Attributes:
        facts: Of each result, by its name; none where the slide has no tissue.
        notes: On the slide.
    """

    facts: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = ()


@contextmanager
def local(source: Source, staging: Staging | None) -> Iterator[tuple[Source, Sequence[str]]]:
    """An input with its copy on this machine, and notes on its download.

    Raises:
        SlideError: It could not be downloaded.
    """
    if source.remote is None or staging is None:
        yield source, ()
        return
    say_download(source.remote, staging)
    with copied(source.remote, staging) as (staged, origin):
        yield replace(source, copy=staged.path, origin=origin), staged.notes


def read_earlier(out: Path, source: Source, settings: Mapping[str, Any]) -> Earlier | None:
    """What an earlier run made of this version of a remote slide with these settings.

    Args:
        out: The output folder.
        source: The input.
        settings: What the results of the whole slide depend on, as JSON values.

    Returns:
        None where it is not done, or a result is missing or was made from something else.
    """
    if source.remote is None:
        return None
    try:
        kept = json.loads(_file(out, source).read_text(encoding="utf-8"))
        same = (kept["settings"], kept["version"]) == (dict(settings), list(source.remote.version))
        names, notes = list(kept["names"]), list(kept["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    facts = {name: read_finished(out, name) for name in names}
    if not same or not all(found and _is_of(found, source) for found in facts.values()):
        return None
    return Earlier({name: found for name, found in facts.items() if found}, notes)


def write_earlier(
    out: Path,
    source: Source,
    settings: Mapping[str, Any],
    names: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Keep what was made of a remote slide, of which no part failed.

    Args:
        out: The output folder.
        source: The input, with its origin: the version that was read.
        settings: As for `read_earlier`.
        names: Of the results.
        notes: On the slide.

    Raises:
        StoreError: It cannot be written.
    """
    assert source.origin is not None
    file = _file(out, source)
    make_folder(file.parent)
    kept = {
        "url": source.origin.url,
        "version": list(source.origin.stat),
        "settings": dict(settings),
        "names": list(names),
        "notes": list(notes),
    }
    with whole_file(file) as path:
        path.write_text(json.dumps(kept), encoding="utf-8")


def _is_of(facts: Mapping[str, Any], source: Source) -> bool:
    """Whether a result was made from this version of a remote slide."""
    assert source.remote is not None
    origin, kept = origin_of(source.remote), facts.get("source")
    if not isinstance(kept, Mapping):
        return False
    return (kept.get("path"), kept.get("stat")) == (origin.url, list(origin.stat))


def _file(out: Path, source: Source) -> Path:
    digest = hashlib.blake2b(str(source.path).encode(errors="surrogateescape"), digest_size=12)
    return out / _FOLDER / f"{digest.hexdigest()}.json"
