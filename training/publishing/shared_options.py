"""Options that several of the commands export, publish, bundle and refresh have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any] | click.Command)  # as in click


def average() -> Callable[[F], F]:
    """`--average`, passed as `others`."""
    return click.option(
        "--average",
        "others",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Another run from the same start: the weights of its export are averaged with those"
        " of RUN; several times.",
    )


def row() -> Callable[[F], F]:
    """`--row`: of the figures."""
    return click.option(
        "--row",
        help="The encoder's row in the figures. Default: the one of its weights and readout.",
    )


def overlap(default: str = "the card says that it was not checked") -> Callable[[F], F]:
    """`--overlap`: with the training images."""
    return click.option(
        "--overlap",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help=f"JSON of `training.publishing.overlap`. Default: {default}.",
    )


def note(default: str | None = "") -> Callable[[F], F]:
    """`--note`: for the card."""
    kept = " Default: as it is." if default is None else ""
    return click.option(
        "--note", default=default, help=f"How this encoder was chosen, for the card.{kept}"
    )
