"""`--tissue`: the file of drawn areas of each slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.cli.names import file_stem
from pathencoder.errors import ConfigError
from pathencoder.slides.tissue_file import SUFFIX
from pathencoder.walk import printable

TISSUE = "tissue"  # the folder of --save-tissue in an output folder


def drawn_for(given: Path | None, jobs: Sequence[Job]) -> tuple[dict[str, Path], list[str]]:
    """The file of drawn areas of each slide.

    Args:
        given: A GeoJSON file, for the only slide, or a folder of them; None: nothing was drawn.
        jobs: All jobs of the command.

    Returns:
        Files by job name, and a note where a slide has none: its tissue is found.

    Raises:
        ConfigError: One file for several slides, or no slide has a file.
    """
    slides = [job for job in jobs if job.kind == "slide"]
    if given is None:
        return {}, []
    if not given.is_dir():
        if len(slides) != 1:
            raise ConfigError(
                f"--tissue {printable(given)} is one file, and the inputs hold {len(slides)}"
                f" slides: name a folder with NAME{SUFFIX} of each slide"
            )
        return {slides[0].name: given}, []
    found = {job.name: file for job in slides for file in _candidates(given, job) if file.exists()}
    without = [job for job in slides if job.name not in found]
    if not found:
        wanted = f", such as {printable(_candidates(given, slides[0])[0].name)}" if slides else ""
        raise ConfigError(f"--tissue {printable(given)}: no file in it is of a slide{wanted}")
    if not without:
        return found, []
    names = ", ".join(printable(job.source.name) for job in without[:3])
    more = ", ..." * (len(without) > 3)
    return found, [
        f"no areas were drawn for {len(without)} of {len(slides)} slides ({names}{more}): their"
        " tissue is found"
    ]


def _candidates(folder: Path, job: Job) -> tuple[Path, ...]:
    """Names that a file of a slide's areas may have; the last one that exists counts."""
    names = (file_stem(job.source), job.source.name, job.name)
    return tuple(folder / f"{name}{SUFFIX}" for name in dict.fromkeys(names))
