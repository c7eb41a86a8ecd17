"""What the user named, as work to do: slides, and folders of tiles; and the name of each one's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from pathencoder.images import SUFFIXES as IMAGE_SUFFIXES
from pathencoder.images import list_images
from pathencoder.slides.reader import FOREIGN_SUFFIXES, SLIDE_SUFFIXES, TIFF_SUFFIXES, is_slide_tiff, looks_like_slide
from pathencoder.walk import printable

_IMAGE_BESIDE = frozenset({".vms", ".vmu"})  # slides whose pixels lie in .jpg files beside them


@dataclass(frozen=True)
class Job:
    """One output file's work. kind: "slide", "tiles" or "nothing" (then `problem` says why).

    images: (key, file) of tiles. whole: the images are all there are in a folder, so that a row of an image that is gone goes, too.
    """

    source: Path
    kind: str
    name: str = ""
    images: tuple[tuple[str, Path], ...] = ()
    whole: bool = True
    problem: str = ""


def find_jobs(inputs: Sequence[Path], *, taken_as: str | None = None) -> list[Job]:
    """The work in files and folders; `taken_as` "tiles" or "slides" decides what they are. Each job has a name of its own."""
    jobs: list[Job] = []
    loose: dict[Path, dict[str, Path]] = {}
    for path in dict.fromkeys(inputs):
        if path.is_dir():
            jobs += _of_folder(path, taken_as)
        elif not path.exists():
            jobs.append(Job(path, "nothing", problem="no such file or folder"))
        elif is_slide(path, taken_as):
            jobs.append(Job(path, "slide"))
        elif taken_as == "tiles" or path.suffix.lower() in IMAGE_SUFFIXES:
            loose.setdefault(path.parent, {})[path.name] = path
        else:
            jobs.append(
                Job(path, "nothing", problem=f"neither an image nor a slide by its suffix {path.suffix!r}: --as tiles or --as slides")
            )
    jobs += [Job(folder, "tiles", images=tuple(files.items()), whole=False) for folder, files in loose.items()]
    return name_jobs(jobs)


def refuse_nothing(jobs: Sequence[Job]) -> None:
    """Raises click.UsageError, which names every input, where none of them holds anything to encode."""
    if all(job.kind == "nothing" for job in jobs):
        reasons = "\n".join(f"  {printable(job.source)}: {job.problem}" for job in jobs)
        raise click.UsageError(f"nothing to do:\n{reasons}")


def source_of(job: Job) -> Path:
    """The input that a job is about."""
    return job.source


def name_of(job: Job) -> str:
    """The name of a job's output."""
    return job.name or job.source.name


def is_slide(path: Path, taken_as: str | None = None) -> bool:
    """Whether a file is a slide: by the user's word, by its suffix, or, a TIFF, by its size and build."""
    if taken_as is not None:
        return taken_as == "slides"
    return looks_like_slide(path)


def name_jobs(jobs: Iterable[Job]) -> list[Job]:
    """Give every job a name of its own: the stem of its source, with the suffix and then the parent folders where two would be the same."""
    named = [replace(job, name=_stem(job)) for job in jobs]
    for lengthen in (_with_suffix, _with_parent, _with_grandparent):
        counts = Counter(job.name.casefold() for job in named)
        named = [replace(job, name=lengthen(job)) if counts[job.name.casefold()] > 1 else job for job in named]
    return named


def _of_folder(folder: Path, taken_as: str | None) -> list[Job]:
    slides = [] if taken_as == "tiles" else _slides_in(folder, taken_as)
    images = [] if taken_as == "slides" else _tiles_in(folder, {job.source for job in slides}, taken_as)
    jobs = list(slides)
    if images:
        jobs.append(Job(folder, "tiles", images=tuple((p.relative_to(folder).as_posix(), p) for p in images)))
    if not jobs:
        wanted = {"tiles": "images", "slides": "slides"}.get(taken_as or "", "images or slides")
        jobs.append(Job(folder, "nothing", problem=f"no {wanted} in this folder"))
    return jobs


def _slides_in(folder: Path, taken_as: str | None) -> list[Job]:
    found: list[Path] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p, folder)):
        suffix = path.suffix.lower()
        if suffix == ".dcm":  # a folder of DICOM files is one slide
            place = path.parent if sum(p.suffix.lower() == ".dcm" for p in path.parent.iterdir()) > 1 else path
            found += [place] if place not in found else []
        elif suffix in SLIDE_SUFFIXES | FOREIGN_SUFFIXES or (suffix in TIFF_SUFFIXES and (taken_as == "slides" or is_slide_tiff(path))):
            found.append(path)
    return [Job(path, "slide") for path in found]


def _tiles_in(folder: Path, slides: set[Path], taken_as: str | None) -> list[Path]:
    beside = {s.parent for s in slides if s.suffix.lower() in _IMAGE_BESIDE}
    return [p for p in list_images(folder) if taken_as == "tiles" or (p not in slides and p.parent not in beside)]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _stem(job: Job) -> str:
    path = job.source.resolve()
    if job.kind != "slide" or path.is_dir():
        return path.name or "root"
    name = path.name[: -len(path.suffix)] if path.suffix else path.name
    return name[:-4] if name.lower().endswith(".ome") else name


def _with_suffix(job: Job) -> str:
    return job.source.name if job.kind == "slide" else f"{job.name}-tiles"


def _with_parent(job: Job) -> str:
    return f"{job.source.resolve().parent.name}-{job.name}"


def _with_grandparent(job: Job) -> str:
    return f"{job.source.resolve().parent.parent.name}-{job.name}"
