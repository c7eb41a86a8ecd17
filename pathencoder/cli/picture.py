"""`pathencoder picture`: a map of a slide's features as an image file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import FilledPath, debug_option, echo_json, json_option
from pathencoder.cli.head_maps import OF_HEAD, check, values_of
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.pictures.draw import Drawn

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def _point(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    x, _comma, y = value.partition(",")
    if not (x.strip().isdigit() and y.strip().isdigit()):
        raise click.BadParameter("two whole numbers, X,Y in level-0 pixels of the slide")
    return float(x), float(y)


def _picture(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in _FORMATS:
        raise click.BadParameter(
            f"{value} ends in none of {', '.join(_FORMATS)}: the suffix decides the format"
        )
    return value


@click.command(short_help="Draw a slide's features.")
@click.argument("features", type=FilledPath(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(["pca", "similarity", "clusters", *OF_HEAD]),
    default="pca",
    show_default=True,
    help="Features as colours, the similarity to one tile, clusters of tiles, or what a slide head"
    " (--head) attends to or scores.",
)
@click.option(
    "--tile",
    callback=_point,
    help="X,Y in level-0 pixels: a point of the tile that others are compared with.",
)
@click.option(
    "--clusters", type=click.IntRange(2, 9), default=6, show_default=True, help="How many clusters."
)
@click.option(
    "--head", type=FilledPath(), help="For attention and scores: a slide head, or owner/repo."
)
@click.option("--label", help="For scores: the class. Default: the one that the head predicts.")
@click.option(
    "--slide",
    type=FilledPath(path_type=Path),
    help="The slide. Default: the one that the features were made from, where it still exists.",
)
@click.option(
    "--out",
    type=FilledPath(path_type=Path, dir_okay=False),
    callback=_picture,
    help="The picture; its suffix decides the format. Default: NAME-KIND.png in this folder.",
)
@json_option
@debug_option
def command(
    *,
    features: Path,
    kind: str,
    tile: tuple[float, float] | None,
    clusters: int,
    head: str | None,
    label: str | None,
    slide: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw the features of a slide as a map over the slide.

    FEATURES is a feature file of a slide, in any layout. Without the slide itself the map is drawn
    on white. In Python: pathencoder.draw_features.

    \b
    pathencoder picture features/slide.h5
    pathencoder picture features/slide.h5 --kind similarity --tile 12000,8400 --out near.png
    pathencoder picture features/slide.h5 --kind clusters --clusters 5 --slide slide.svs
    pathencoder picture features/slide.h5 --kind attention --head my_head
    """
    from pathencoder.features.identity import refuse_input
    from pathencoder.files import make_folder, whole_file
    from pathencoder.pictures.draw import drawn

    check(kind, head, label)
    if head is None:
        made = drawn(features, kind, tile, clusters, slide)
    else:
        shown = values_of(kind, head, features, label)
        made = drawn(
            features,
            "values",
            tile,
            clusters,
            slide,
            values=shown.values,
            title=shown.title,
            notes=shown.notes,
        )
    out = out or Path(f"{features.stem}-{kind}.png")
    if made.ground.slide is not None:
        refuse_input(out, made.ground.slide)
    make_folder(out.absolute().parent)
    with whole_file(out) as temporary:
        made.image.save(temporary, format=_FORMATS[out.suffix.lower()])
    _report(out, made, as_json=as_json)


def _report(out: Path, made: Drawn, *, as_json: bool) -> None:
    tiles, ground, painted = made.tiles, made.ground, made.painted
    notes = [*ground.notes, *tiles.notes]
    if as_json:
        chosen = None if painted.chosen is None else tiles.corners[painted.chosen].tolist()
        facts = {"picture": str(out), "tiles": len(tiles.rows), "tile": chosen, "notes": notes}
        echo_json({**facts, "slide": ground.slide and str(ground.slide)})
        return
    for note in notes:
        click.echo(f"note: {printable(note)}", err=True)
    click.echo(printable(f"{painted.title}, {len(tiles.rows):,} tiles: {out}"))
