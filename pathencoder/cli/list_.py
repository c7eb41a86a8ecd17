"""`pathencoder list`: a table of all known encoders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import debug_option, echo_json, json_option, plural, table

if TYPE_CHECKING:
    from pathencoder.spec import EncoderSpec


@click.command(short_help="Show the encoders.")
@click.argument("pattern", default="*")
@click.option(
    "--stain",
    type=click.Choice(["he", "ihc", "special", "cytology"]),
    help="Only encoders trained on it.",
)
@click.option(
    "--commercial/--non-commercial",
    default=None,
    help="Only encoders that may (or may not) be used commercially.",
)
@json_option
@debug_option
def command(*, pattern: str, stain: str | None, commercial: bool | None, as_json: bool) -> None:
    """Show the encoders whose name matches PATTERN (all of them by default).

    \b
    pathencoder list
    pathencoder list "*phikon*"
    pathencoder list --stain ihc --commercial
    """
    from pathencoder.pretrained import catalogue

    rows = catalogue.catalogue()
    own = set(catalogue.bundled())
    names = catalogue.list_encoders(pattern, stain=stain, commercial=commercial)
    if as_json:
        echo_json([{**dataclasses.asdict(rows[name]), "bundled": name in own} for name in names])
        return
    if not names:
        click.echo(f"No encoder matches {pattern!r}. `pathencoder list` shows all.")
        return
    head = ["name", "numbers", "um/px", "stains", "licence", "commercial", "gated", "here"]
    click.echo(table([head, *(_row(rows[name], bundled=name in own) for name in names)]))
    click.echo(
        f"\n{plural(len(names), 'encoder')}. Default: {catalogue.DEFAULT}. `pathencoder info NAME`"
        " shows one."
    )


def _row(spec: EncoderSpec, *, bundled: bool) -> list[str]:
    return [
        spec.name,
        str(spec.dim),
        scale(spec),
        "+".join(spec.stains),
        spec.licence,
        "yes" if spec.commercial else "no",
        "yes" if spec.gate else "no",
        "bundled" if bundled else "",
    ]


def scale(spec: EncoderSpec) -> str:
    """The scale of an encoder in um per pixel: one number, a range, or a question mark."""
    if spec.mpp is not None:
        return f"{spec.mpp:g}"
    return f"{spec.mpp_range[0]:g}-{spec.mpp_range[1]:g}" if spec.mpp_range else "?"
