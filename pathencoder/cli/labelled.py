"""Options of the verbs that take labelled images: `fit` and `adapt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pathencoder.cli.common import SEED

F = TypeVar("F", bound=Callable[..., Any])


def encoder_options(function: F) -> F:
    """Adds --encoder (as `name`) and --revision."""
    named = "Name, folder or owner/repo; `pathencoder list`. Default: the bundled one."
    function = click.option("--revision", default=None, help="Revision of the encoder on the Hub.")(
        function
    )
    return click.option("--encoder", "name", default=None, help=named)(function)


def groups_options(function: F) -> F:
    """Adds --groups, --split and --seed."""
    groups = (
        "CSV: the column of patients or slides. Default: group, patient, case or slide. Folder: a"
        r" regular expression with one part in parentheses, searched in each path, as '(P\d+)_'."
    )
    split = "CSV: the column of the parts. Default: split or fold."
    seed = "Of folds and random numbers."
    for option in (
        click.option("--seed", type=SEED, default=0, show_default=True, help=seed),
        click.option("--split", default=None, help=split),
        click.option("--groups", default=None, help=groups),
    ):
        function = option(function)
    return function


def weight_option(function: F) -> F:
    """Adds --class-weight."""
    return click.option(
        "--class-weight",
        type=click.Choice(["balanced", "none"]),
        default="balanced",
        show_default=True,
        help="Classifiers: whether every class, or every image, counts the same.",
    )(function)
