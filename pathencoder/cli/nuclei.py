"""`pathencoder nuclei`: the nuclei of images and slides as labels, outlines, table, overlay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import (
    SEED,
    Failed,
    FilledPath,
    InputPath,
    State,
    debug_option,
    json_option,
    scratch_options,
)

if TYPE_CHECKING:
    from pathencoder.nuclei.regions import Box

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FOLDER = FilledPath(path_type=Path, file_okay=False)
_REGION = (click.IntRange(0), click.IntRange(0), click.IntRange(1), click.IntRange(1))
_HELP = {
    "out": "Folder for the results.",
    "mpp": ("Micrometres per pixel of the images. Default: as in each file, else 0.25 is assumed."),
    "mpp_csv": (
        "Table with a column slide, and mpp or stain, a row for each image or slide; takes"
        " precedence over the options of these names."
    ),
    "as": "Read the inputs whole (tiles), or region by region (slides).",
    "stain": "H&E, or DAB and hematoxylin. Default: guessed for each image.",
    "adapt": (
        "First retrain the network on these images, without labels, and save it in OUT/network."
    ),
    "network": "A folder written by --adapt. Default: the bundled network.",
    "region": "The part to segment, in level-0 pixels; may be given several times.",
    "dry_run": "List the inputs, their scales and the names of their results; write nothing.",
}


@click.command(short_help="Find nuclei in H&E and IHC images.")
@click.argument("images", nargs=-1, required=True, type=InputPath(path_type=Path))
@click.option("--out", required=True, type=_FOLDER, help=_HELP["out"])
@click.option("--mpp", type=click.FloatRange(0.05, 2), help=_HELP["mpp"])
@click.option("--slides-csv", "--mpp-csv", "mpp_csv", type=_FILE, help=_HELP["mpp_csv"])
@click.option("--as", "taken_as", type=click.Choice(["tiles", "slides"]), help=_HELP["as"])
@click.option("--stain", type=click.Choice(["he", "ihc"]), help=_HELP["stain"])
@click.option("--adapt", is_flag=True, help=_HELP["adapt"])
@click.option("--network", type=_FOLDER, help=_HELP["network"])
@click.option(
    "--region",
    "regions",
    nargs=4,
    multiple=True,
    type=_REGION,
    metavar="X Y W H",
    help=_HELP["region"],
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of --adapt.")
@scratch_options
@click.option("--dry-run", is_flag=True, help=_HELP["dry_run"])
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    images: tuple[Path, ...],
    out: Path,
    mpp: float | None,
    mpp_csv: Path | None,
    taken_as: str | None,
    stain: str | None,
    adapt: bool,
    network: Path | None,
    regions: tuple[Box, ...],
    seed: int,
    scratch: Path | None,
    scratch_gb: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find the nuclei in IMAGES: images, slides, folders of them, or URLs of slides.

    A slide is segmented in regions with tissue, or in each --region.

    Each image gives NAME.labels.png (a number for each nucleus), NAME.geojson (opens in QuPath),
    NAME.csv (size, position, stains) and NAME.overlay.png. A region of a slide gives NAME_xX_yY, a
    --region NAME_xX_yY_wW_hH. NAME is the path below what you gave, without the suffix; if OUT has
    results of another image of that name, the suffix or the folder is added.

    Failed inputs are listed in OUT/failures.csv and do not stop the rest (exit status 3). The same
    command again skips what is done.

    \b
    pathencoder nuclei tile.png --out nuclei --mpp 0.25
    pathencoder nuclei ki67/ --out nuclei --adapt
    pathencoder nuclei slide.svs --region 20000 15000 4000 4000 --out nuclei
    pathencoder nuclei s3://bucket/slides/ --out nuclei
    """
    from pathencoder.cli.finders import NucleiFinder
    from pathencoder.cli.mpp_table import read_mpp_csv
    from pathencoder.cli.nuclei_adapt import adapted_network
    from pathencoder.cli.nuclei_report import list_only, run_all
    from pathencoder.cli.nuclei_run import Asked, Run
    from pathencoder.cli.nuclei_scales import with_common_scales
    from pathencoder.cli.nuclei_sources import find_sources, with_scales
    from pathencoder.files import make_folder
    from pathencoder.nuclei.instances import tools
    from pathencoder.nuclei.weights import load_network
    from pathencoder.remote.staging import Scratch

    if adapt and network:
        raise click.UsageError("--adapt trains a network and --network gives one: use only one")
    tools()
    rows = read_mpp_csv(mpp_csv) if mpp_csv else []
    sources = with_scales(find_sources(images, taken_as=taken_as), mpp, rows)
    asked = Asked(out, stain, regions, Scratch(scratch, scratch_gb))
    if dry_run:
        raise Failed(list_only(sources, asked, as_json=as_json))
    given = load_network(network) if not adapt else None
    make_folder(out)
    sources = with_common_scales(sources, stain)
    chosen = given or adapted_network(sources.all, asked, seed)
    run = Run(asked, NucleiFinder(chosen), debug=state.debug)
    raise Failed(run_all(run, sources, as_json=as_json))
