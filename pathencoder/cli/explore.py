"""`pathencoder explore`: one HTML page to explore the features of slides."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import (
    Failed,
    FilledPath,
    debug_option,
    echo_json,
    json_option,
    plural,
)
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.explore.write import ExplorePage
    from pathencoder.pictures.located import Tiles

_PART = 3  # exit status where some inputs failed


@click.command(short_help="Explore slides in a browser.")
@click.argument("features", nargs=-1, required=True, type=FilledPath(path_type=Path))
@click.option(
    "--out",
    type=FilledPath(path_type=Path, dir_okay=False),
    default=Path("explore.html"),
    show_default=True,
    help="The page.",
)
@click.option(
    "--slides",
    type=FilledPath(path_type=Path),
    help="Folder of the slides. Default: where they were when they were encoded.",
)
@click.option(
    "--max-mb",
    type=click.FloatRange(0.5, 200),
    default=5.0,
    show_default=True,
    help="Size of the page at most. Pictures are made smaller to fit; features are not.",
)
@click.option("--title", default=None, help="Default: the name of the slide.")
@json_option
@debug_option
def command(
    *,
    features: tuple[Path, ...],
    out: Path,
    slides: Path | None,
    max_mb: float,
    title: str | None,
    as_json: bool,
) -> None:
    """Write one HTML page to explore the features of one or several slides.

    FEATURES are feature files of slides, of one encoder and in any layout, or folders of them. The
    page needs no network and no other file: click a tile to see which tiles resemble it. In
    Python: pathencoder.write_explore_page.

    \b
    pathencoder explore features/slide.h5
    pathencoder explore features --slides slides --out study.html
    """
    from pathencoder.explore.write import write_explore_page

    started = time.monotonic()
    page = write_explore_page(
        features, out, slides=slides, title=title, max_mb=max_mb, on_slide=_say
    )
    seconds = time.monotonic() - started
    if as_json:
        echo_json(_facts(page, seconds))
    else:
        _report(page, seconds)
    if page.failed:
        raise Failed(_PART)


def _say(tiles: Tiles) -> None:
    click.echo(f"{printable(tiles.slide)}: {plural(len(tiles.rows), 'tile')}", err=True)


def _facts(page: ExplorePage, seconds: float) -> dict[str, Any]:
    return {
        "page": str(page.path),
        "bytes": page.size,
        "slides": page.slides,
        "tiles": page.tiles,
        "explained_variance": page.explained,
        "correlation": page.correlation,
        "nearest_tiles_the_same": page.agreement,
        "seconds": round(seconds, 2),
        "notes": page.notes,
        "failed": [{"file": str(file), "reason": reason} for file, reason in page.failed],
    }


def _report(page: ExplorePage, seconds: float) -> None:
    for note in page.notes:
        click.echo(f"note: {printable(note)}", err=True)
    for _, reason in page.failed:
        click.echo(f"failed: {printable(reason)}", err=True)
    click.echo(
        f"{plural(len(page.slides), 'slide')}, {plural(page.tiles, 'tile')},"
        f" {page.size / 1e6:.1f} MB, {seconds:.1f} s: {printable(str(page.path))}"
    )
    if page.correlation is not None:
        click.echo(
            f"Similarity on the page: {100 * page.explained:.1f} % of the variance, correlation"
            f" {math.floor(1e4 * page.correlation) / 1e4:.4f} with that of whole features"
        )
    click.echo("Open it in a browser.")
