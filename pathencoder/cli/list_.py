"""`pathencoder list`: tables of all known encoders."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
from typing import TYPE_CHECKING

import click

from pathencoder.cli.common import debug_option, echo_json, json_option, plural, table

if TYPE_CHECKING:
    from pathencoder.pretrained.listed import ListedEncoder
    from pathencoder.spec import EncoderSpec

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_HEAD = ("name", "numbers", "parameters", "um/px", "stains", "licence", "commercial", "gated")


def _count(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """The number of parameters that is written as 30M, 1.1B, 500k or 22000000."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMB]?)", text.strip(), re.IGNORECASE)
    if not found:
        raise click.BadParameter(
            f"{text!r} is not a number of parameters such as 30M or 1.1B", param=parameter
        )
    return float(found[1]) * _UNITS[found[2].upper()]


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
@click.option(
    "--max-params",
    callback=_count,
    metavar="COUNT",
    help="Only encoders of at most so many parameters: 30M, 1.1B.",
)
@json_option
@debug_option
def command(
    *,
    pattern: str,
    stain: str | None,
    commercial: bool | None,
    max_params: float | None,
    as_json: bool,
) -> None:
    """Show the encoders whose name matches PATTERN (all of them by default).

    Those that pathencoder does not load, and encoders of whole slides, are listed below with what
    they need. With --json each has "loads": true or false.

    \b
    pathencoder list
    pathencoder list "*phikon*"
    pathencoder list --stain ihc --commercial --max-params 30M
    """
    from pathencoder.pretrained import catalogue, listed

    rows, own = catalogue.catalogue(), set(catalogue.bundled())
    names = catalogue.list_encoders(
        pattern, stain=stain, commercial=commercial, max_params=max_params
    )
    others = [
        one
        for one in listed.listed().values()
        if fnmatch.fnmatchcase(one.name, pattern.casefold())
        and (commercial is None or one.commercial == commercial)
    ]
    unknown = [
        one
        for one in others
        if (stain and not one.stains) or (max_params is not None and one.parameters is None)
    ]
    others = [
        one
        for one in others
        if (stain is None or stain in one.stains)
        and (max_params is None or (one.parameters or math.inf) <= max_params)
    ]
    if as_json:
        echo_json(
            [
                *(
                    {**dataclasses.asdict(rows[n]), "loads": True, "bundled": n in own}
                    for n in names
                ),
                *({**dataclasses.asdict(one), "loads": False} for one in others),
            ]
        )
        return
    if not names and not others:
        click.echo(f"No encoder matches {_asked(pattern)}. `pathencoder list` shows all.")
    if names:
        cells = [_row(rows[name], bundled=name in own) for name in names]
        click.echo(table([[*_HEAD, "here"], *cells]))
        click.echo(f"\n{plural(len(names), 'encoder')}. Default: {catalogue.DEFAULT}.")
    _show_others("Not loaded by pathencoder", [o for o in others if o.kind == "tile"])
    _show_others("Encoders of slides, not loaded", [o for o in others if o.kind == "slide"])
    if unknown:
        click.echo(
            f"\nLeft out, as their size or stains are not known to us:"
            f" {', '.join(one.name for one in unknown)}."
        )
    if names or others:
        click.echo("\n`pathencoder info NAME` shows one.")


def _asked(pattern: str) -> str:
    return f"{pattern!r} and the options" if pattern != "*" else "the options"


def _row(spec: EncoderSpec, *, bundled: bool) -> list[str]:
    return [
        spec.name,
        str(spec.dim),
        size(spec.parameters),
        scale(spec),
        "+".join(spec.stains),
        spec.licence,
        "yes" if spec.commercial else "no",
        "yes" if spec.gate else "no",
        "bundled" if bundled else "",
    ]


def _show_others(title: str, others: list[ListedEncoder]) -> None:
    if not others:
        return
    slides = others[0].kind == "slide"
    head = ["name", "numbers", "parameters", *(["of tiles by"] if slides else [])]
    rows = [
        [
            one.name,
            str(one.dim or "?"),
            size(one.parameters),
            *([one.tiles] if slides else []),
            one.licence,
            "yes" if one.commercial else "no",
            "yes" if one.gate else "no",
            one.needs,
        ]
        for one in others
    ]
    click.echo(f"\n{title}:\n")
    click.echo(table([[*head, "licence", "commercial", "gated", "needs"], *rows]))


def size(parameters: int | None) -> str:
    """A number of parameters: 2.2M, 303M, 1.13B; a question mark if it is not known."""
    if parameters is None:
        return "?"
    if parameters >= 1e9:
        return f"{parameters / 1e9:.2f}B"
    return f"{parameters / 1e6:.{1 if parameters < 1e8 else 0}f}M"


def scale(spec: EncoderSpec) -> str:
    """The scale of an encoder in um per pixel: one number, a range, or a question mark."""
    if spec.mpp is not None:
        return f"{spec.mpp:g}"
    return f"{spec.mpp_range[0]:g}-{spec.mpp_range[1]:g}" if spec.mpp_range else "?"
