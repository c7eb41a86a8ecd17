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
    from pathencoder.explore.gather import Gathered
    from pathencoder.pictures.located import Tiles

_PART = 3  # exit status where some inputs failed


def _page(_: click.Context, __: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter(f"{value} does not end in .html")
    return value


@click.command(short_help="Explore slides in a browser.")
@click.argument("features", nargs=-1, required=True, type=FilledPath(path_type=Path))
@click.option(
    "--out",
    type=FilledPath(path_type=Path, dir_okay=False),
    callback=_page,
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
    page needs no network and no other file: click a tile to see which tiles resemble it.

    \b
    pathencoder explore features/slide.h5
    pathencoder explore features --slides slides --out study.html
    """
    from pathencoder.explore.data import page_data
    from pathencoder.explore.gather import gather
    from pathencoder.explore.write import write_page

    started = time.monotonic()
    found = gather(features, slides, on_slide=_say)
    names = [laid.tiles.slide for laid in found.slides]
    data = page_data(
        found.slides,
        title=title or (names[0] if len(names) == 1 else plural(len(names), "slide")),
        max_bytes=int(max_mb * 1e6),
    )
    size = write_page(data, out)
    notes = _notes(found)
    if size > max_mb * 1e6:
        notes.append(f"the features alone make the page larger than --max-mb {max_mb:g}")
    facts = {
        "page": str(out),
        "bytes": size,
        "slides": names,
        "tiles": sum(len(laid.tiles.rows) for laid in found.slides),
        "explained_variance": data["explained"],
        "correlation": data["correlation"],
        "nearest_tiles_the_same": data["agreement"],
        "seconds": round(time.monotonic() - started, 2),
        "notes": notes,
        "failed": [{"file": str(file), "reason": reason} for file, reason in found.failed],
    }
    if as_json:
        echo_json(facts)
    else:
        _report(facts)
    if found.failed:
        raise Failed(_PART)


def _say(tiles: Tiles) -> None:
    click.echo(f"{printable(tiles.slide)}: {plural(len(tiles.rows), 'tile')}", err=True)


def _notes(found: Gathered) -> list[str]:
    return [
        f"{laid.tiles.slide}: {note}"
        for laid in found.slides
        for note in (*laid.ground.notes, *laid.tiles.notes)
    ]


def _report(facts: dict[str, Any]) -> None:
    for note in facts["notes"]:
        click.echo(f"note: {printable(note)}", err=True)
    for failed in facts["failed"]:
        click.echo(f"failed: {printable(failed['reason'])}", err=True)
    click.echo(
        f"{plural(len(facts['slides']), 'slide')}, {plural(facts['tiles'], 'tile')},"
        f" {facts['bytes'] / 1e6:.1f} MB, {facts['seconds']:.1f} s: {printable(str(facts['page']))}"
    )
    if facts["correlation"] is not None:
        click.echo(
            f"Similarity on the page: {100 * facts['explained_variance']:.1f} % of the variance,"
            f" correlation {math.floor(1e4 * facts['correlation']) / 1e4:.4f} with that of whole"
            " features"
        )
    click.echo("Open it in a browser.")
