"""The options of a command from a TOML file: `pathencoder fit head.toml`.

    head = "linear"
    data = "tiles.csv"      # paths are relative to the file
    out = "my_head"
    evaluate = "test"
    [options]               # of the kind of head: -o c=0.01
    c = 0.01

Keys are the long options without their dashes. What the command line gives counts before the file.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pathencoder.cli.common import FilledPath


def config_argument() -> Callable[[Any], Any]:
    """The optional argument CONFIG of a command."""
    return click.argument(
        "config",
        required=False,
        is_eager=True,  # before options are looked for
        expose_value=False,
        callback=_read,
        type=FilledPath(path_type=Path, exists=True),
    )


def _read(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    if file.is_dir() or file.suffix.lower() == ".csv":
        raise click.UsageError(f"{file} is no file of options: labelled data are --data {file}")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"{file} cannot be read as TOML ({error}). A file of options holds lines as"
            ' data = "tiles.csv"; labelled data are given with --data'
        ) from error
    known = _keys(context.command)
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            close = f". Did you mean {near[0]!r}?" if near else f": one of {', '.join(known)}"
            raise click.UsageError(f"{file}: {key!r} is no option of {context.info_name}{close}")
        option = known[name]
        assert option.name is not None
        found[option.name] = _given(option, value, f"{file}: {key}", file.absolute().parent)
    context.default_map = found


def _keys(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their key in a file."""
    found: dict[str, click.Option] = {}
    for option in command.params:
        if isinstance(option, click.Option):
            longest = max(option.opts, key=len).lstrip("-")
            found[f"{longest}s" if option.multiple else longest] = option  # [options]: --option
    return found


def _given(option: click.Option, value: Any, where: str, folder: Path) -> Any:
    """A value of TOML as the command line would give it."""
    if option.multiple:
        if not isinstance(value, dict):
            raise click.UsageError(f"{where}: a table, NAME = VALUE a line")
        return [f"{name}={json.dumps(one, default=str)}" for name, one in value.items()]
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where}: true or false")
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise click.UsageError(f"{where}: a text or a number")
    text = str(value)
    if text and (isinstance(option.type, click.Path) or text.startswith(("./", "../"))):
        return os.path.normpath(folder / os.path.expanduser(text))
    return text
