"""What all verbs share: common options, loading an encoder, and text formats."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pathencoder.seeds import HIGHEST
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

_DEVICES = "auto, cpu, cuda, cuda:1, mps. Auto takes CUDA, then Apple's GPU, then the CPU."

F = TypeVar("F", bound=Callable[..., Any])
SEED = click.IntRange(0, HIGHEST)


@dataclass
class State:
    """The options that hold for every verb."""

    debug: bool = False


class Failed(Exception):
    """Ends a command with an exit status, after its report was printed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def debug_option(function: F) -> F:
    """Adds --debug."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001
        if value:
            context.find_root().obj.debug = True

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=remember, help="Print tracebacks."
    )(function)


def scratch_options(function: F) -> F:
    """Adds --scratch and --scratch-gb, of verbs that read remote slides."""
    folder = FilledPath(path_type=Path, file_okay=False)
    where = "Folder for copies of remote slides while they are read. Default: the temporary folder."
    most = "The most that these copies may take."
    function = click.option(
        "--scratch-gb", type=click.FloatRange(0.001), default=50.0, show_default=True, help=most
    )(function)
    return click.option("--scratch", type=folder, help=where)(function)


def json_option(function: F) -> F:
    """Adds --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON on standard output, for programs."
    )(function)


def device_option(function: F) -> F:
    """Adds --device."""
    return click.option("--device", default="auto", show_default=True, help=_DEVICES)(function)


def devices_option(function: F) -> F:
    """Adds --device, of which several may be named."""
    text = f"{_DEVICES} Several share the slides: cuda:0,cuda:1 or cuda:all."
    return click.option("--device", default="auto", show_default=True, help=text)(function)


class FilledPath(click.Path):
    """A path option that refuses "", which an unset variable of the shell becomes.

    Python reads "" as the current folder.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Refuse an empty path, then check as `click.Path` does."""
        if not os.fspath(value):
            self.fail(
                '"" is not a path (an empty variable?). The current folder is "."', param, ctx
            )
        return super().convert(value, param, ctx)


class InputPath(FilledPath):
    """An input: a path, or the URL of a remote slide as `UrlPath`."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """A URL without its secrets; anything else as `FilledPath` does."""
        from pathencoder.remote.objects import is_remote, url_path

        if not is_remote(value):
            return super().convert(value, param, ctx)
        url = url_path(value)
        given = ctx.meta.setdefault(f"{__name__}.urls", {}) if ctx else {}
        if given.setdefault(url, value) != value:
            self.fail(f"{url} is given twice, with different queries: give one of them", param, ctx)
        return url


def spec_of(name: str | None, revision: str | None) -> EncoderSpec:
    """The spec of an encoder, without its weights.

    Args:
        name: Name, folder or owner/repo; None: the default encoder.
        revision: Revision on the Hub.

    Raises:
        UnknownEncoder: Nothing has that name.
        OfflineError: Only the Hub has it, and does not answer.
    """
    from pathencoder.pretrained import catalogue, locate

    name = name or catalogue.DEFAULT
    name = catalogue.find(name) or name
    spec = catalogue.catalogue().get(name) if revision is None else None
    return spec or locate.describe(name, revision=revision)


def load(name: str | None, *, device: str = "auto", revision: str | None = None) -> Encoder:
    """Load an encoder and say so on standard error, since importing torch takes seconds."""
    click.echo(f"loading {name or 'the default encoder'} ...", err=True)
    from pathencoder.encoder import load_encoder

    return load_encoder(name, device=device, revision=revision)


def echo_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(as_json_text(value))


def as_json_text(value: Any) -> str:
    """A value as a JSON document."""
    return json.dumps(_printable(value), indent=2, default=_text)


def _printable(value: Any) -> Any:
    """The same value with every text as valid Unicode, which any JSON reader accepts."""
    if isinstance(value, dict):
        return {_printable(k): _printable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(v) for v in value]
    return printable(value) if isinstance(value, str) else value


def _text(value: Any) -> str:
    return printable(str(value))


def table(rows: list[list[str]]) -> str:
    """A text table with aligned columns; the first row is the header."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def plural(count: int, word: str) -> str:
    """A count with its word: 1 tile, 1,200 tiles."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
