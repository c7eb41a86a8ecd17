"""The inputs that the user named, as jobs: slides, and folders of tiles.

Inputs are identified by the paths that the user typed; links are followed, never resolved. What is
found in a folder and not used is listed (`Found.left_out`).
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from pathencoder.cli.job import Job
from pathencoder.cli.names import give_names
from pathencoder.cli.own_files import PICTURES, hidden_in, is_own_picture, without_own
from pathencoder.errors import PathEncoderError
from pathencoder.features.identity import place_of
from pathencoder.features.layouts import path_of
from pathencoder.formats.file_kinds import (
    TIFF_SUFFIXES,
    is_large_image,
    looks_like_slide,
)
from pathencoder.images import SUFFIXES as IMAGE_SUFFIXES
from pathencoder.remote.objects import UrlPath, is_remote
from pathencoder.remote.slides import find_slides
from pathencoder.slides.dicom import read_header
from pathencoder.walk import NEITHER, LeftOut, Walk, natural, printable, walk

_SAME_NAME = "the name of another image here prints the same: rename one of them"
_JPEGS_BESIDE = frozenset({".vms", ".vmu"})  # slides whose pixels lie in .jpg files beside them


@dataclass
class Found:
    """The jobs in the inputs, and what was left out."""

    jobs: list[Job] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_inputs(
    inputs: Iterable[Path], *, taken_as: str | None = None, out: Path | None = None
) -> Found:
    """The jobs in files and folders.

    Args:
        inputs: As the user typed them. An input that is named twice, or lies in a folder that is
            named, counts once.
        taken_as: "tiles" or "slides" decides what they are; None: their names and headers do.
        out: The output folder, which may lie in an input: its pictures are never inputs.

    Returns:
        Jobs with different names, in the order of the inputs; several single images of one folder
        are one job, and come last.
    """
    found = Found()
    loose: dict[str, dict[str, Path]] = {}
    dicom: dict[str, list[Path]] = {}
    for path in inputs:
        kind = "" if isinstance(path, UrlPath) else _kind_of(path)
        if isinstance(path, UrlPath):
            add_remote(path, taken_as, found)
        elif kind == "folder":
            _look_into(path, taken_as, found, out)
        elif kind != "file":
            found.jobs.append(Job(path, "nothing", problem=kind))
        elif path.suffix.lower() == ".dcm" and taken_as != "tiles":
            dicom.setdefault(os.path.abspath(path.parent), []).append(path)
        elif is_slide(path, taken_as):
            found.jobs.append(Job(path, "slide"))
        elif taken_as == "tiles" or path.suffix.lower() in IMAGE_SUFFIXES:
            images = loose.setdefault(os.path.abspath(path.parent), {})
            other = images.setdefault(printable(path.name), path)
            if os.path.abspath(other) != os.path.abspath(path):
                found.jobs.append(Job(path, "nothing", problem=_SAME_NAME))
        else:
            problem = (
                f"neither an image nor a slide by its suffix {printable(path.suffix)!r}: --as tiles"
                " or --as slides"
            )
            found.jobs.append(Job(path, "nothing", problem=problem))
    found.jobs += [Job(path, "slide") for files in dicom.values() for path in dicom_slides(files)]
    found.jobs += _loose_images(loose.values(), found.jobs)
    found.jobs = give_names(_once(found.jobs))
    return found


def add_remote(url: UrlPath, taken_as: str | None, found: Found) -> None:
    """Add the slides of a URL, and what is left out below it."""
    if taken_as == "tiles":
        problem = "remote inputs are slides. Copy images to this machine to encode them"
        found.jobs.append(Job(url, "nothing", problem=problem))
        return
    try:
        there = find_slides(str(url))
    except PathEncoderError as error:
        problem = str(error).removeprefix(f"{url}: ")
        found.jobs.append(Job(url, "nothing", problem=problem))
        return
    found.jobs += [Job(UrlPath(slide.url), "slide", remote=slide) for slide in there.slides]
    found.left_out += [LeftOut(UrlPath(place), reason) for place, reason in there.left_out]
    if not there.slides:
        found.jobs.append(Job(url, "nothing", problem="no slides below this prefix"))


def _loose_images(folders: Iterable[dict[str, Path]], jobs: Sequence[Job]) -> list[Job]:
    """Images that the user named one by one: a job a folder, without those of other jobs."""
    inside = {os.path.abspath(file) for job in jobs for _, file in job.images}
    found = []
    for files in folders:
        rest = tuple((k, file) for k, file in files.items() if os.path.abspath(file) not in inside)
        if rest:
            source = rest[0][1] if len(rest) == 1 else rest[0][1].parent
            found.append(Job(source, "tiles", images=rest, whole=False))
    return found


def refuse_nothing(found: Found) -> None:
    """Refuse inputs of which none can be encoded.

    Raises:
        click.UsageError: None can; the message names every input.
    """
    if all(job.kind == "nothing" for job in found.jobs):
        reasons = [f"  {printable(job.source)}: {job.problem}" for job in found.jobs]
        reasons += [f"  {printable(left.path)}: left out, {left.reason}" for left in found.left_out]
        raise click.UsageError("\n".join(["nothing to do:", *reasons]))


def is_slide(path: Path, taken_as: str | None = None) -> bool:
    """Whether a file is a slide: as the user says, else by its name or a TIFF's structure."""
    return looks_like_slide(path) if taken_as is None else taken_as == "slides"


def _kind_of(path: Path) -> str:
    """The kind of a path: "folder", "file", or a sentence on what is wrong with it."""
    if is_remote(path):
        return (
            "remote slides are copied here by `pathencoder encode` and `pathencoder nuclei` alone."
            " Download it first"
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            return "a link to nothing"
        unknown = re.match(r"([A-Za-z][A-Za-z0-9+.:-]+):/", os.fspath(path))
        if unknown:
            return f"{unknown[1]}:// cannot be read: s3://, gs://, az:// and https:// can"
        return "no such file or folder"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else NEITHER


def _once(jobs: Iterable[Job]) -> list[Job]:
    """The jobs without slides and folders that are named again."""
    known = {(job.kind, os.path.abspath(job.source)): job for job in reversed(list(jobs))}
    return list(known.values())[::-1]


def _look_into(folder: Path, taken_as: str | None, found: Found, out: Path | None) -> None:
    """Add the slides of a folder, its tiles as one job, and what is left out."""
    walked = walk(folder)
    if out is not None and _is_below(out, folder):
        walked = _without_outputs(walked, out)
    slides = [] if taken_as == "tiles" else _slides_among(walked.files, taken_as)
    parts = _PartsOfSlides(slides)
    rest = [p for p in walked.files if p not in parts]
    images = [] if taken_as == "slides" else [p for p in rest if p.suffix.lower() in IMAGE_SUFFIXES]
    found.jobs += [Job(path, "slide") for path in slides]
    if images:
        keyed: dict[str, Path] = {}
        for path in images:
            key = _key(path, folder)
            if keyed.setdefault(key, path) != path:
                found.left_out.append(LeftOut(path, _SAME_NAME))
        unread = tuple(_key(left.path, folder) for left in walked.left_out if left.unread)
        found.jobs.append(Job(folder, "tiles", images=tuple(keyed.items()), unread=unread))
    if not slides and not images:
        wanted = {"tiles": "images", "slides": "slides"}.get(taken_as or "", "images or slides")
        found.jobs.append(Job(folder, "nothing", problem=f"no {wanted} in this folder"))
    others = without_own(p for p in rest if p not in set(images))
    found.left_out += [*walked.left_out, *_summed_up(folder, others, taken_as, walked.hidden)]


def _key(path: Path, folder: Path) -> str:
    return printable(path.relative_to(folder).as_posix())


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it."""
    inside = os.path.join(os.path.abspath(folder), "")
    return os.path.join(os.path.abspath(path), "").startswith(inside)


def _without_outputs(walked: Walk, out: Path) -> Walk:
    """A walk without the pictures of the output folder, and without hidden files of ours."""
    drawn = [p for p in walked.files if _is_below(p, out / PICTURES)]
    left_out = list(walked.left_out)
    if not all(is_own_picture(p) for p in drawn):
        left_out.append(LeftOut(out / PICTURES, "the folder of --pictures"))
    files = [p for p in walked.files if p not in set(drawn)]
    return Walk(files, left_out, max(0, walked.hidden - hidden_in(out)))


def _slides_among(files: Sequence[Path], taken_as: str | None) -> list[Path]:
    """The slides among the files of a folder."""
    dicom: dict[Path, list[Path]] = {}
    found = []
    for path in files:
        suffix = path.suffix.lower()
        if suffix == ".dcm":
            dicom.setdefault(path.parent, []).append(path)
        elif looks_like_slide(path) or (
            taken_as == "slides" and (suffix in TIFF_SUFFIXES or is_large_image(path))
        ):
            found.append(path)
    return found + [slide for together in dicom.values() for slide in dicom_slides(together)]


def dicom_slides(files: Sequence[Path]) -> list[Path]:
    """The slides that DICOM files of one folder belong to; files of one series are one slide.

    Args:
        files: Of one folder.

    Returns:
        A slide each: its folder or, where that holds several series, its first file.
    """
    if len(files) == 1:
        return list(files)
    every = sorted(p for p in files[0].parent.iterdir() if p.suffix.lower() == ".dcm")
    series = {header.series for path in every if (header := read_header(path)) and header.is_volume}
    if len(series) < 2:
        return [files[0].parent]
    first: dict[str, Path] = {}
    for path in sorted(files, key=lambda p: natural(Path(p.name))):
        header = read_header(path)
        if header and header.is_volume:
            first.setdefault(header.series, path)
    return list(first.values()) or list(files)


class _PartsOfSlides:
    """The files that belong to slides: neither tiles nor left out."""

    def __init__(self, slides: Sequence[Path]) -> None:
        self._slides = set(slides)
        self._jpegs = {s.parent for s in slides if s.suffix.lower() in _JPEGS_BESIDE}
        self._folders = {s.with_suffix("") for s in slides if s.suffix.lower() == ".mrxs"}
        self._vsi = {s.parent / f"_{s.stem}_" for s in slides if s.suffix.lower() == ".vsi"}

    def __contains__(self, path: Path) -> bool:
        if path in self._slides or (path.suffix.lower() == ".dcm" and self._slides):
            return True
        if path.suffix.lower() == ".ets" and not self._vsi.isdisjoint(path.parents):
            return True
        return path.parent in self._folders or (
            path.parent in self._jpegs and path.suffix.lower() in IMAGE_SUFFIXES
        )


def _summed_up(
    folder: Path, others: Sequence[Path], taken_as: str | None, hidden: int
) -> list[LeftOut]:
    """Files that are not used, as one line for the folder."""
    lines = []
    if others:
        kinds = Counter(printable(p.suffix.lower()) or "without suffix" for p in others)
        listed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(8))
        why = f"not taken with --as {taken_as}" if taken_as else "neither images nor slides"
        lines.append(
            LeftOut(
                folder,
                f"{len(others):,} {'file is' if len(others) == 1 else 'files are'} {why}"
                f" ({listed})",
            )
        )
    if hidden:
        lines.append(
            LeftOut(
                folder,
                f"{hidden:,} hidden {'file or folder' if hidden == 1 else 'files and folders'}",
            )
        )
    return lines


def output_of(job: Job, out: Path, layout: str) -> Path:
    """The feature file of a job."""
    return path_of(out, job.name, layout) if job.kind == "slide" else out / f"{job.name}.h5"


def name_of(job: Job) -> str:
    """The name of a job in progress lines."""
    return job.name or os.path.basename(place_of(job.source))


def source_of(job: Job) -> Path:
    """The input of a job, as the user typed it."""
    return job.source
