"""Files that pathencoder itself has written: in an input folder they are not worth reporting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pathencoder.cli.job import Job
from pathencoder.cli.report import FAILURES, is_failures_list
from pathencoder.cli.summary_files import is_summary
from pathencoder.errors import ConfigError
from pathencoder.features import checksums
from pathencoder.features.identity import parts_of
from pathencoder.features.layouts import LAYOUTS, path_of
from pathencoder.walk import printable

PICTURES = "pictures"  # the folder of --pictures in an output folder
MAPS = ("pca", "clusters")  # folders in it


def without_own(files: Iterable[Path]) -> list[Path]:
    """The files without feature files, CLAM tensors, lists and summaries of pathencoder."""
    return [path for path in files if not _is_own(path)]


def is_own_picture(path: Path) -> bool:
    """Whether a picture in an output folder belongs to a feature file of that folder."""
    folder = path.parent.parent if path.parent.name in MAPS else path.parent
    return any(checksums.marked(path_of(folder.parent, path.stem, la)) for la in LAYOUTS)


def refuse_pictures_of_inputs(out: Path, jobs: Iterable[Job]) -> None:
    """Refuse pictures that would take the place of an input of any job.

    Args:
        out: The output folder.
        jobs: All jobs of the command.

    Raises:
        ConfigError: One would.
    """
    every, places = list(jobs), _places_of_pictures(out)
    names = [f"{job.name}.jpg" for job in every if job.kind == "slide"]
    drawn = {_file_id(place / name): place / name for place in places for name in names}
    drawn.pop(None, None)
    if not drawn:
        return
    for file in (file for job in every for file in _files_of(job)):
        if (picture := drawn.get(_file_id(file))) is not None:
            raise ConfigError(
                f"--pictures would replace the input {printable(file)} by the picture"
                f" {printable(picture)}: choose another --out"
            )


def _places_of_pictures(out: Path) -> list[Path]:
    """The folders in which pictures of slides may lie; each of several encoders has its own."""
    folder = out / PICTURES
    return [folder, *(p for kind in MAPS for p in (folder / kind, *folder.glob(f"*/{kind}")))]


def _files_of(job: Job) -> Iterable[Path]:
    """The files of an input of this machine."""
    if job.remote is not None:
        return []
    if job.kind == "slide":
        return parts_of(job.source)
    return [job.source, *(file for _, file in job.images)]


def _file_id(path: Path) -> tuple[int, int] | None:
    """The same for two paths of one file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def hidden_in(out: Path) -> int:
    """How many hidden files in an output folder are unfinished work and locks of pathencoder."""
    ends = (".partial", ".lock", ".lease", ".incomplete")
    with contextlib.suppress(OSError):
        return sum(p.name.startswith(".") and p.name.endswith(ends) for p in out.iterdir())
    return 0


def _is_own(path: Path) -> bool:
    if path.suffix in (".h5", ".h5ad"):
        return checksums.marked(path)
    if any(p.suffix == ".zarr" and checksums.marked(p) for p in path.parents):
        return True
    if path.suffix == ".pt" and path.parent.name == "pt_files":
        return checksums.marked(path.parent.parent / "h5_files" / f"{path.stem}.h5")
    return is_summary(path) or (path.name == FAILURES and is_failures_list(path))
