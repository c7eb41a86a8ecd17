"""`pathencoder convert`: feature files from one layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import Failed, FilledPath, State, debug_option, json_option

if TYPE_CHECKING:
    from pathencoder.cli.job import Job
    from pathencoder.features.convert import Target
    from pathencoder.walk import LeftOut


@click.command(short_help="Change the layout of feature files.")
@click.argument("inputs", nargs=-1, required=True, type=FilledPath(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the new files.",
)
@click.option(
    "--layout",
    required=True,
    type=click.Choice(["trident", "clam", "stamp", "anndata", "zarr"]),
    help="Layout of the new files.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per level-0 pixel of slides whose files do not state it.",
)
@click.option(
    "--tile-side",
    type=click.FloatRange(1, 1e6),
    help="Side of a tile in level-0 pixels, for files that do not state it.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    inputs: tuple[Path, ...],
    out: Path,
    layout: str,
    mpp: float | None,
    tile_side: float | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert INPUTS, feature files or folders of them, to another layout.

    Files of pathencoder in every layout are read (.h5, .h5ad, .zarr), and those that TRIDENT, CLAM
    and STAMP wrote. What a layout cannot hold is refused; what was assumed or rounded is said and
    recorded. The same command again skips what is done. Files that fail are listed in
    OUT/failures.csv and do not stop the others (exit status 3). In Python:
    pathencoder.convert_features.

    \b
    pathencoder convert features --out stamp --layout stamp
    pathencoder convert features/slide.h5 --out adata --layout anndata
    pathencoder convert clam/h5_files --out trident --layout trident --mpp 0.25 --tile-side 256
    """
    from pathencoder.features.convert import Target
    from pathencoder.files import make_folder

    target = Target(layout=layout, mpp=mpp, tile_side=tile_side, overwrite=overwrite)
    jobs, left_out = _jobs(inputs)
    make_folder(out)
    raise Failed(_convert(jobs, left_out, out, target, as_json=as_json, debug=state.debug))


def _convert(
    jobs: list[Job],
    left_out: list[LeftOut],
    out: Path,
    target: Target,
    *,
    as_json: bool,
    debug: bool,
) -> int:
    from pathencoder.cli import report
    from pathencoder.cli.inputs import name_of, source_of
    from pathencoder.cli.jobs import RESUMES, STARTS_AGAIN, Loop, conclude
    from pathencoder.cli.meter import Meter
    from pathencoder.features.convert import convert_file
    from pathencoder.features.job import Outcome
    from pathencoder.features.layouts import path_of

    def do(job: Job, _: Meter) -> Outcome:
        return convert_file(job.source, path_of(out, job.name, target.layout), target)

    ended = Loop(do, source_of, name_of, unit="row", debug=debug).run(jobs)
    about = report.About("", out, left_out)
    return conclude(
        ended,
        out,
        as_text=lambda failures: report.summary(ended.outcomes, about, failures=failures),
        as_json=(
            (
                lambda failures: report.as_json(
                    ended.outcomes, about, failures=failures, status=ended.status
                )
            )
            if as_json
            else None
        ),
        go_on=STARTS_AGAIN if target.overwrite else RESUMES,
        debug=debug,
    )


def _jobs(inputs: tuple[Path, ...]) -> tuple[list[Job], list[LeftOut]]:
    """The feature files, named, and what was left out of folders."""
    from pathencoder.cli.job import Job
    from pathencoder.cli.names import give_names
    from pathencoder.errors import ConfigError
    from pathencoder.features.containers import is_zarr

    found: dict[Path, None] = {}
    left_out: list[LeftOut] = []
    for given in inputs:
        if given.is_dir() and not is_zarr(given):
            files, others = _inside(given)
            found |= dict.fromkeys(files)
            left_out += others
        else:
            found[given] = None
    if not found:
        reasons = "; ".join(f"{left.path}: {left.reason}" for left in left_out)
        raise ConfigError(f"no feature files were found{f' ({reasons})' if reasons else ''}")
    return give_names(Job(path, "slide") for path in found), left_out


def _inside(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """The feature files below a folder, and what is none."""
    from pathencoder.features.containers import holds_no_features, is_zarr
    from pathencoder.walk import LeftOut, walk

    listed = walk(folder)
    found: dict[Path, None] = {}
    left_out, others = list(listed.left_out), 0
    for path in listed.files:
        above = next((p for p in path.parents if p.suffix == ".zarr" and is_zarr(p)), None)
        if above is not None and folder in above.parents:
            found[above] = None
        elif path.suffix.lower() not in (".h5", ".h5ad"):
            others += 1
        elif holds_no_features(path):
            left_out.append(LeftOut(path, "it holds no features"))
        else:
            found[path] = None
    if others:
        what = "file is no feature file" if others == 1 else "files are no feature files"
        left_out.append(LeftOut(folder, f"{others:,} {what} (.h5, .h5ad, .zarr)"))
    return list(found), left_out
