"""`pathencoder doctor`: what is missing on this machine, how to fix it, and how fast it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pathencoder.cli import doctor_checks as checks
from pathencoder.cli import doctor_speed as speeds
from pathencoder.cli.common import (
    Failed,
    FilledPath,
    State,
    debug_option,
    device_option,
    echo_json,
    json_option,
    load,
    spec_of,
)

_Facts = dict[str, str]


@click.command(short_help="Check this machine.")
@click.option(
    "--slide", type=FilledPath(path_type=Path), help="Also measure how fast this slide is read."
)
@click.option("--mpp", type=click.FloatRange(0.01, 100), help="The slide's micrometres per pixel.")
@click.option("--encoder", default=None, help="Encoder to measure. Default: the bundled one.")
@click.option("--speed/--no-speed", default=True, help="Measure the encoder.", show_default=True)
@device_option
@json_option
@debug_option
@click.pass_obj
def command(
    state: State,
    *,
    slide: Path | None,
    mpp: float | None,
    encoder: str | None,
    speed: bool,
    device: str,
    as_json: bool,
) -> None:
    """Report what is missing and how to fix it, check the bundled weights, and measure speed.

    With --slide it also reads that slide and predicts slides an hour. Exit status 1 if something is
    broken.

    \b
    pathencoder doctor
    pathencoder doctor --slide scan.svs --encoder virchow2
    """
    report = checks.Report()
    sections: dict[str, Callable[[], _Facts]] = {
        "versions": lambda: checks.versions(report),
        "extras": lambda: checks.extras(report),
        "devices": lambda: checks.devices(report),
        "openslide": lambda: checks.openslide(report),
        "hub": lambda: checks.hub(report),
        "folders": lambda: checks.folders(report),
        "bundled weights": lambda: checks.weights(report),
    }
    loaded: list[Any] = []
    if speed:

        def measure() -> _Facts:
            loaded.append(load(encoder, device=device))
            return speeds.encoding(loaded[0], report)

        sections["speed"] = measure
    if slide is not None:
        sections["slide"] = lambda: speeds.reading(
            slide, loaded[0].spec if loaded else spec_of(encoder, None), mpp, report
        )
    if speed:
        sections["prediction"] = lambda: speeds.prediction(loaded[0], report) if loaded else {}
    found: dict[str, Any] = {}
    for title, look in sections.items():
        found[title] = _safely(title, look, report, debug=state.debug)
        if not as_json:
            _show(title, found[title])
    if as_json:
        ends = {"numbers": report.numbers, "advice": report.advice, "problems": report.problems}
        echo_json({**found, **ends})
    else:
        _show_ends(report)
    raise Failed(1 if report.problems else 0)


def _safely(
    title: str, look: Callable[[], _Facts], report: checks.Report, *, debug: bool
) -> _Facts:
    """The facts of one section; a section that fails is a problem, and the others follow."""
    try:
        return look()
    except Exception as error:
        if debug:
            raise
        text = str(error) or type(error).__name__
        report.problems.append(f"{title}: {text}")
        return {"failed": text}


def _show(title: str, facts: _Facts) -> None:
    if not facts:
        return
    click.echo(title)
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"  {name.ljust(width)}  {value}")


def _show_ends(report: checks.Report) -> None:
    click.echo("")
    for text in report.advice:
        click.echo(f"ADVICE: {text}")
    for text in report.problems:
        click.echo(f"PROBLEM: {text}")
    if not report.problems:
        click.echo("No problem found.")
