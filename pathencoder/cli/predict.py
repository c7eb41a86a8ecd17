"""`pathencoder predict`: a head on images, and on the features of slides."""

from __future__ import annotations

from pathlib import Path

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    State,
    debug_option,
    device_option,
    json_option,
)


@click.command(short_help="Predict with a head.")
@click.argument("head", type=FilledPath())
@click.argument("inputs", nargs=-1, required=True, type=FilledPath(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=FilledPath(path_type=Path, file_okay=False),
    help="Folder for the tables of predictions.",
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
    help="Micrometres per pixel of the images. Default: as those that the head was fitted on.",
)
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
    device: str,
    as_json: bool,
) -> None:
    """Predict the classes of INPUTS with HEAD, a folder of `pathencoder fit` or owner/repo.

    INPUTS are images, folders of images, and feature files (.h5) of `pathencoder encode`. Each
    gives a table OUT/NAME.csv: image (or x and y of a slide's tile), label, abstained, and the
    probability of each class. An image that cannot be read is listed in OUT/failures.csv.

    \b
    pathencoder predict head new_tiles/ --out predictions
    pathencoder encode slide.svs --out features
    pathencoder predict head features/slide.h5 --out predictions
    """
    from pathencoder.cli.predict_run import find, predict_all
    from pathencoder.files import make_folder
    from pathencoder.heads.fit import load_head

    found = find(inputs, out)
    loaded = load_head(head)
    make_folder(out)
    click.echo(f"loading {name or loaded.record.name} ...", err=True)
    if name is None:
        loaded.use(loaded.record.load(device))
    else:
        from pathencoder.encoder import load_encoder

        loaded.use(load_encoder(name, device=device))
    raise Failed(predict_all(loaded, found, out, mpp, as_json=as_json, debug=state.debug))
