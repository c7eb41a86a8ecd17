"""Files that pathencoder itself has written: in an input folder they are not worth reporting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pathencoder.cli.report import FAILURES, is_failures_list
from pathencoder.cli.summary_files import is_summary
from pathencoder.features import checksums
from pathencoder.features.layouts import LAYOUTS, path_of

PICTURES = "pictures"  # the folder of --pictures in an output folder
MAPS = ("pca", "clusters")  # folders in it


def without_own(files: Iterable[Path]) -> list[Path]:
    """The files without feature files, CLAM tensors, lists and summaries of pathencoder."""
    return [path for path in files if not _is_own(path)]


def is_own_picture(path: Path) -> bool:
    """Whether a picture in an output folder belongs to a feature file of that folder."""
    folder = path.parent.parent if path.parent.name in MAPS else path.parent
    return any(checksums.marked(path_of(folder.parent, path.stem, la)) for la in LAYOUTS)


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
