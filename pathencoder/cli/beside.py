"""`--tissue` and `--coords`: the file that belongs to each slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.cli.names import file_stem
from pathencoder.errors import ConfigError
from pathencoder.walk import printable

TISSUE = "tissue"  # the folder of --save-tissue in an output folder
TISSUE_ENDS = (".geojson",)
COORDS_ENDS = ("_patches.h5", ".h5")  # TRIDENT's, and everyone else's


@dataclass(frozen=True)
class Beside:
    """Files of slides, by job name, and notes on slides without one."""

    tissue: Mapping[str, Path] = field(default_factory=dict)
    coords: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()


def find_beside(tissue: Path | None, coords: Path | None, jobs: Sequence[Job]) -> Beside:
    """The files that --tissue and --coords give.

    Raises:
        ConfigError: One file for several slides, or no slide has a file.
    """
    areas, of_areas = files_beside(
        tissue, jobs, option="--tissue", ends=TISSUE_ENDS, instead="their tissue is found"
    )
    places, of_places = files_beside(
        coords,
        jobs,
        option="--coords",
        ends=COORDS_ENDS,
        instead="a grid is laid over their tissue",
    )
    return Beside(areas, places, [*of_areas, *of_places])


def files_beside(
    given: Path | None, jobs: Sequence[Job], *, option: str, ends: Sequence[str], instead: str
) -> tuple[dict[str, Path], list[str]]:
    """The file of each slide.

    Args:
        given: A file, for the only slide, or a folder of them; None: the option was not given.
        jobs: All jobs of the command.
        option: Of the command line.
        ends: What follows the name of a slide in the name of its file.
        instead: What is done for a slide without a file.

    Returns:
        Files by job name, and a note where a slide has none.

    Raises:
        ConfigError: One file for several slides, also by its name, or no slide has a file.
    """
    slides = [job for job in jobs if job.kind == "slide"]
    if given is None:
        return {}, []
    if not given.is_dir():
        if len(slides) != 1:
            raise ConfigError(
                f"{option} {printable(given)} is one file, and the inputs hold {len(slides)}"
                f" slides: name a folder with NAME{ends[0]} of each slide"
            )
        return {slides[0].name: given}, []
    found = {
        job.name: file for job in slides for file in _names(given, job, ends) if file.is_file()
    }
    _refuse_shared(found, slides, option, ends)
    without = [job for job in slides if job.name not in found]
    if not found:
        wanted = f", such as {printable(_names(given, slides[0], ends)[0].name)}" if slides else ""
        raise ConfigError(f"{option} {printable(given)}: no file in it is of a slide{wanted}")
    if not without:
        return found, []
    names = ", ".join(printable(job.source.name) for job in without[:3])
    more = ", ..." * (len(without) > 3)
    return found, [
        f"{option} has no file of {len(without)} of {len(slides)} slides ({names}{more}): {instead}"
    ]


def _refuse_shared(
    found: Mapping[str, Path], slides: Sequence[Job], option: str, ends: Sequence[str]
) -> None:
    """Raise ConfigError where one file is that of several slides of one file name."""
    jobs: dict[Path, list[Job]] = {}
    for job in slides:
        if job.name in found:
            jobs.setdefault(found[job.name], []).append(job)
    for file, sharing in jobs.items():
        if len(sharing) > 1:
            sources = ", ".join(printable(job.source) for job in sharing[:3])
            names = ", ".join(printable(f"{job.name}{ends[-1]}") for job in sharing[:3])
            more = ", ..." * (len(sharing) > 3)
            raise ConfigError(
                f"{option}: {printable(file)} has the name of {len(sharing)} slides ({sources}"
                f"{more}). Name the file of each slide: {names}{more}"
            )


def _names(folder: Path, job: Job, ends: Sequence[str]) -> list[Path]:
    """Names that the file of a slide may have; the last one that exists counts."""
    stems = dict.fromkeys((file_stem(job.source), job.source.name, job.name))
    return [folder / f"{stem}{end}" for stem in stems for end in ends]
