"""Options that several commands of training.evaluate have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any] | click.Command)  # as in click


def data_folder(content: str, folder: str = "../shared/data") -> Callable[[F], F]:
    """`--data`: the folder that is read, and what it holds."""
    return _place("--data", folder, content)


def results_file(file: str) -> Callable[[F], F]:
    """`--results`: the table to which a line a fit is added."""
    return click.option(
        "--results",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path(file),
        show_default=True,
        help="A line a fit: what is there already is not fitted again.",
    )


def cache_folder(folder: str, content: str) -> Callable[[F], F]:
    """`--cache`: where computed parts are kept."""
    return _place("--cache", folder, content)


def out_folder(folder: str, content: str) -> Callable[[F], F]:
    """`--out`: the folder that is written."""
    return _place("--out", folder, content)


def chosen_sets(names: str) -> Callable[[F], F]:
    """`--sets`, passed as `chosen`."""
    return click.option(
        "--sets", "chosen", default=names, show_default=True, help="Comma-separated sets."
    )


def cross_validated() -> Callable[[F], F]:
    """`--cv`: for choices."""
    return click.option(
        "--cv",
        is_flag=True,
        help="Folds by group inside the train parts alone: for choices; test parts stay unread.",
    )


def seeds(what: str, count: int = 3) -> Callable[[F], F]:
    """`--seeds`: how often something is done."""
    return click.option("--seeds", default=count, show_default=True, help=what)


def json_file(content: str = "every figure") -> Callable[[F], F]:
    """`--json`, passed as `out`."""
    return click.option(
        "--json", "out", type=click.Path(path_type=Path), help=f"Write {content} here as well."
    )


def imagenet_weights() -> Callable[[F], F]:
    """`--imagenet`, once or several times: the weights of the baseline rows."""
    return click.option(
        "--imagenet",
        multiple=True,
        type=click.Path(path_type=Path),
        default=(Path("../shared/weights/mobilenetv2_100_imagenet.safetensors"),),
        show_default=True,
        help="ImageNet weights for the baseline rows: of the evaluated encoder's network where one"
        " of the files is (training/backbones/imagenet_weights.py makes them), else the first.",
    )


def _place(name: str, place: str, content: str) -> Callable[[F], F]:
    return click.option(
        name, type=click.Path(path_type=Path), default=Path(place), show_default=True, help=content
    )
