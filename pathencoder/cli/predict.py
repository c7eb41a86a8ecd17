"""`pathencoder predict`: a head on images, slides, and the features of slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    InputPath,
    State,
    debug_option,
    device_option,
    json_option,
    scratch_options,
)
from pathencoder.cli.encode import VIEWS

if TYPE_CHECKING:
    from pathencoder.heads.classifier import Classifier
    from pathencoder.heads.dense.head import DenseHead
    from pathencoder.heads.slide.head import SlideHead
    from pathencoder.heads.slide.survival import SurvivalHead
    from pathencoder.nuclei.regions import Box

_REGION = (click.IntRange(0), click.IntRange(0), click.IntRange(1), click.IntRange(1))


@click.command(short_help="Predict with a head.")
@click.argument("head", type=FilledPath())
@click.argument("inputs", nargs=-1, required=True, type=InputPath(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the predictions.",
)
@click.option(
    "--encoder",
    "name",
    default=None,
    help="The encoder of the head, where it has moved: name, folder or owner/repo.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.01, 100),
    help="Micrometres per pixel of the images. Default: as each file states, or as those that the"
    " head was fitted on.",
)
@click.option(
    "--region",
    "regions",
    nargs=4,
    multiple=True,
    type=_REGION,
    metavar="X Y W H",
    help="Dense heads: the part to read, in level-0 pixels; may be given several times.",
)
@click.option(
    "--stain",
    type=click.Choice(["he", "ihc"]),
    help="Dense heads: H&E, or DAB and hematoxylin. Default: as the images of the fit.",
)
@click.option(
    "--views",
    type=click.Choice(VIEWS),
    help="Dense heads: views that are averaged, which takes as many times as long.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace tables of predictions, also those of other inputs and heads.",
)
@scratch_options
@device_option
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    head: str,
    inputs: tuple[Path, ...],
    out: Path,
    name: str | None,
    mpp: float | None,
    regions: tuple[Box, ...],
    stain: str | None,
    views: str | None,
    overwrite: bool,
    scratch: Path | None,
    scratch_gb: float,
    device: str,
    as_json: bool,
) -> None:
    """Predict with HEAD, a folder of `pathencoder fit` or owner/repo, on INPUTS.

    A classifier takes images, folders of images, and feature files (.h5) of `pathencoder encode`.
    Each gives a table OUT/NAME.csv: image (or x and y of a slide's tile), label, abstained, and the
    probability of each class. An image that cannot be read is listed in OUT/failures.csv. A folder
    of feature files gives a table a file.

    A dense head (glands, nuclei, points, pixels) takes images, and slides, which it reads in
    regions with tissue or in each --region. Each image gives NAME.labels.png (a number for each
    object or class), NAME.geojson (opens in QuPath), NAME.csv and NAME.overlay.png.

    A head of slides (abmil, slide-mean, slide-max) takes feature files of slides in any layout, and
    folders of them: the table OUT/NAME.csv has a row a slide.

    The same command again skips what is done. A table of another input or head is not replaced
    without --overwrite; NAME.csv.json says what a table was made from.

    \b
    pathencoder predict head new_tiles/ --out predictions
    pathencoder encode slide.svs --out features
    pathencoder predict head features/slide.h5 --out predictions
    pathencoder predict glands slide.svs --region 20000 15000 4000 4000 --out glands_found
    """
    from pathencoder.heads.classifier import Classifier
    from pathencoder.heads.fit import load_head
    from pathencoder.heads.slide.head import SlideHead
    from pathencoder.heads.slide.survival import SurvivalHead

    loaded = load_head(head, device=device)
    if isinstance(loaded, SlideHead | SurvivalHead):
        if mpp or name or regions or stain or views:
            raise click.UsageError(
                f"{head} is a head of slides, which reads feature files: --mpp, --encoder,"
                " --region, --stain and --views are of heads that read images"
            )
        status = _of_slides(
            loaded, inputs, out, overwrite=overwrite, as_json=as_json, debug=state.debug
        )
        raise Failed(status)
    if not isinstance(loaded, Classifier):
        from pathencoder.cli.nuclei_run import Asked
        from pathencoder.cli.predict_dense import predict_dense
        from pathencoder.remote.staging import Scratch

        if overwrite:
            raise click.UsageError(
                f"--overwrite is of heads that write tables alone, and {head} is a {loaded.kind}"
                " head: it replaces no results of another input"
            )
        _use(loaded, name, device)
        asked = Asked(out, stain, regions, Scratch(scratch, scratch_gb))
        count = None if views is None else int(views)
        status = predict_dense(
            loaded, inputs, asked, mpp=mpp, views=count, as_json=as_json, debug=state.debug
        )
        raise Failed(status)
    if regions or stain or views:
        raise click.UsageError(
            f"--region, --stain and --views are of dense heads, and {head} is a {loaded.kind} head"
        )
    from pathencoder.cli.predict_run import find, predict_all
    from pathencoder.files import make_folder

    found = find(inputs, out)
    make_folder(out)
    _use(loaded, name, device)
    status = predict_all(
        loaded, found, out, mpp, overwrite=overwrite, as_json=as_json, debug=state.debug
    )
    raise Failed(status)


def _of_slides(
    head: SlideHead | SurvivalHead,
    inputs: tuple[Path, ...],
    out: Path,
    *,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Predict on feature files; returns the exit status."""
    from pathencoder.cli.predict_run import predict_all
    from pathencoder.cli.predict_slides import find_features
    from pathencoder.files import make_folder

    found = find_features(inputs)
    make_folder(out)
    return predict_all(head, found, out, None, overwrite=overwrite, as_json=as_json, debug=debug)


def _use(head: Classifier | DenseHead, name: str | None, device: str) -> None:
    """Load the encoder of a head: the given one, or the one that it names."""
    click.echo(f"loading {name or head.record.name} ...", err=True)
    if name is not None:
        from pathencoder.encoder import load_encoder

        head.use(load_encoder(name, device=device))
        return
    _ = head.encoder
