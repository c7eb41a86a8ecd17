"""The names of outputs.

1. A name is made from the path that the user typed: the file name of a slide or of a single image
   without its suffix (and without .ome before it), or a folder's name. Links are not resolved.
   Bytes that are not valid text are escaped.
2. Two inputs of one command never share a name, not even with a difference in case or Unicode
   composition only, which some file systems ignore. Until the names differ, these are added: the
   suffix ("-tiles" for a folder of tiles), the folders above, a digest of the path.
3. A name of more than 180 bytes is truncated and ends with such a digest.
4. Inputs of two commands may have the same name. Every output states what it was made from, and
   another input is refused (features/identity.py): nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.features.identity import place_of

_LONGEST = 180  # bytes


def give_names(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with names by the rule above."""
    todo = list(jobs)
    options = [_options(job) for job in todo]
    chosen = [0] * len(todo)
    while True:
        names = [
            ways[min(level, len(ways) - 1)] for ways, level in zip(options, chosen, strict=True)
        ]
        counts = Counter(_folded(name) for name in names)
        shared = [counts[_folded(name)] > 1 for name in names]
        open_ended = [level < len(ways) - 1 for ways, level in zip(options, chosen, strict=True)]
        if not any(s and more for s, more in zip(shared, open_ended, strict=True)):
            return [replace(job, name=name) for job, name in zip(todo, names, strict=True)]
        chosen = [level + again for level, again in zip(chosen, shared, strict=True)]


def file_stem(path: Path) -> str:
    """A slide's file name without suffix, and without .ome before it; printable."""
    name = Path(place_of(path)).name
    stem = name[: -len(suffix)] if (suffix := Path(name).suffix) else name
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def _options(job: Job) -> list[str]:
    """The names that a job may have, from the shortest to the most specific."""
    place = Path(place_of(job.source))
    full = place.name or "root"
    if job.is_one_image or (job.kind == "slide" and not _is_folder(job)):
        short, long = file_stem(job.source), full
    else:
        short, long = full, f"{full}-tiles"
    above = [part for part in place.parts[:-1] if part != place.anchor]
    # two paths may print the same
    typed = os.fsencode(job.source if job.remote else os.path.abspath(job.source))
    digest = hashlib.blake2b(typed, digest_size=6).hexdigest()
    options = [short, long]
    for depth in range(1, len(above) + 1):
        folders = "-".join(above[-depth:])
        options += [f"{folders}-{short}", f"{folders}-{long}"]
    return [cut_short(name, digest) for name in (*options, f"{short}-{digest}")]


def _is_folder(slide: Job) -> bool:
    if slide.remote:
        return slide.remote.whole_folder
    return slide.source.is_dir() and slide.source.suffix != ".zarr"


def cut_short(name: str, digest: str) -> str:
    """A name that file systems accept, with room for what temporary files add to it."""
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{name.encode()[: _LONGEST - 13].decode(errors='ignore')}-{digest}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
