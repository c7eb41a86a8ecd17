"""The inputs of `pathencoder nuclei`: single images and slides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pathencoder.cli.inputs import Found, find_inputs, refuse_nothing
from pathencoder.cli.job import Job
from pathencoder.cli.mpp_table import NUCLEI, Row, assign
from pathencoder.features.identity import Origin
from pathencoder.nuclei.outputs import SUFFIXES
from pathencoder.remote.slides import RemoteSlide
from pathencoder.walk import LeftOut, printable

_RESULTS = (".labels", ".overlay")  # endings of the stems of results that are images


@dataclass(frozen=True)
class Source:
    """One image or slide.

    Attributes:
        path: As the user typed it, or below the folder that the user typed.
        kind: "image", "slide" or "nothing" (then `problem` says why).
        key: The path below what the user typed; of a single file its name. Printable.
        mpp: Micrometres per pixel as given; None: read from the file.
        mpp_source: "given", "--mpp-csv", or how a scale was assumed.
        problem: What is wrong with a "nothing".
        stain: Of this input, where a table gives it.
        remote: The slide of a store, where `path` is its URL.
        copy: Its copy on this machine, while there is one.
        origin: Where the copy is from, and its version there.
    """

    path: Path
    kind: str
    key: str = ""
    mpp: float | None = None
    mpp_source: str = ""
    problem: str = ""
    stain: str | None = None
    remote: RemoteSlide | None = None
    copy: Path | None = None
    origin: Origin | None = None

    @property
    def here(self) -> Path:
        """The file or folder to open."""
        return self.copy or self.path


@dataclass(frozen=True)
class Sources:
    """All inputs of one command.

    Attributes:
        all: The inputs.
        left_out: Files that are not used, with reasons.
        notes: Notes that concern no single input.
    """

    all: list[Source]
    left_out: list[LeftOut]
    notes: list[str]


def find_sources(
    inputs: Iterable[Path], *, taken_as: str | None = None, with_as: bool = True
) -> Sources:
    """The images and slides in files and folders.

    Args:
        inputs: As the user typed them.
        taken_as: "tiles" (images) or "slides"; None: decided by names and headers.
        with_as: The command has the option --as, which messages may name.

    Returns:
        Inputs in the order of the command line, single images last. Label maps and overlays of an
        earlier run in the same folder are left out.

    Raises:
        click.UsageError: Nothing among the inputs is an image or a slide.
    """
    roots = list(inputs)
    found = find_inputs(roots, taken_as=taken_as)
    if not with_as:
        found.jobs = [replace(one, problem=_without_as(one.problem)) for one in found.jobs]
    refuse_nothing(found)
    sources = [source for job in found.jobs for source in _sources_of(job, roots)]
    own = {source.path for source in sources if _is_result(source.path)}
    kept = [source for source in sources if source.path not in own]
    if not kept:
        problem = "only results of an earlier run in this folder"
        refuse_nothing(Found([Job(root, "nothing", problem=problem) for root in roots]))
    left_out = [*found.left_out, *_summed_up(own)]
    return Sources(kept, left_out, [])


def with_scales(sources: Sources, mpp: float | None, rows: list[Row]) -> Sources:
    """Add the scales and stains that the user gave; a row of the table goes before --mpp.

    Args:
        sources: The inputs.
        mpp: Of --mpp.
        rows: Of --mpp-csv.

    Returns:
        The sources with their scales.

    Raises:
        ConfigError: Two rows give one input different scales.
    """
    kinds = {"image": "slide"}  # rows apply to single images as to slides
    jobs = [Job(s.path, kinds.get(s.kind, s.kind), name=s.key) for s in sources.all]
    scales = assign(rows, jobs, NUCLEI)
    chosen = []
    for source, row in zip(sources.all, scales.rows, strict=True):
        given, where = (row.mpp, "--mpp-csv") if row and row.mpp else (mpp, "given")
        stain = row.stain if row else None
        chosen.append(replace(source, mpp=given, mpp_source=where if given else "", stain=stain))
    return Sources(chosen, sources.left_out, [*sources.notes, *scales.notes])


def _without_as(problem: str) -> str:
    """What is wrong with an input, where no option says what it is."""
    what, found, _ = problem.partition(": --as ")
    return f"{what}: give images or slides" if found else what


def _sources_of(job: Job, roots: list[Path]) -> Iterator[Source]:
    if job.kind == "nothing":
        yield Source(job.source, job.kind, printable(job.source.name), problem=job.problem)
    elif job.kind == "slide":
        above = [root for root in roots if root in job.source.parents]
        root = above[0] if above else job.source.parent
        key = printable(job.source.relative_to(root).as_posix())
        yield Source(job.source, "slide", key, remote=job.remote)
    else:
        for key, path in job.images:
            yield Source(path, "image", key)


def _is_result(path: Path) -> bool:
    """Whether an image is a label map or overlay of an earlier run, with its other files."""
    name = next((path.stem.removesuffix(end) for end in _RESULTS if path.stem.endswith(end)), None)
    return name is not None and sum((path.parent / f"{name}{end}").exists() for end in SUFFIXES) > 1


def _summed_up(results: Iterable[Path]) -> list[LeftOut]:
    folders: dict[Path, int] = {}
    for path in results:
        folders[path.parent] = folders.get(path.parent, 0) + 1
    what = "label maps and overlays of an earlier run"
    return [LeftOut(folder, f"{count:,} {what}") for folder, count in folders.items()]
