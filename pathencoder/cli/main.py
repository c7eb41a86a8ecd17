"""The `pathencoder` command: its verbs, its exit status, and errors as sentences.

Exit status: 0 all done, 1 failed, 2 wrong usage, 3 done but some inputs failed, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import sys
import traceback
from collections.abc import Iterator, Sequence

import click

from pathencoder._version import __version__
from pathencoder.cli.common import Failed, State
from pathencoder.cli.messages import plain_messages
from pathencoder.errors import ConfigError, PathEncoderError, UnknownEncoder
from pathencoder.redact import hide_secrets

# verb -> the module in pathencoder.cli that holds its command, in the order that --help shows
VERBS = {
    "encode": "encode",
    "nuclei": "nuclei",
    "fit": "fit",
    "predict": "predict",
    "adapt": "adapt",
    "picture": "picture",
    "explore": "explore",
    "convert": "convert",
    "export": "export",
    "list": "list_",
    "info": "info",
    "verify": "verify",
    "fetch": "fetch",
    "cache": "cache",
    "doctor": "doctor",
    "demo": "demo",
}


class _Verbs(click.Group):
    """A group that imports a verb only when it is used, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = VERBS.get(cmd_name.lower())
        if module is None:
            return None
        command = importlib.import_module(f"pathencoder.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0].lower(), VERBS, n=1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(error.message.removesuffix(".") + hint, ctx) from error


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="pathencoder")
def group() -> None:
    """Embeddings of histopathology tiles and slides, with bundled weights.

    \b
    pathencoder demo                            see it work
    pathencoder encode tiles/ --out features    a folder of tiles
    pathencoder encode *.svs --out features     whole slides
    pathencoder nuclei tile.png --out nuclei    every nucleus of an image
    """


def main() -> None:
    """The console entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status."""
    with _any_text_prints():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    state = State()
    try:
        with plain_messages():
            status = group.main(
                list(arguments), prog_name="pathencoder", standalone_mode=False, obj=state
            )
    except click.UsageError as error:
        error.message = hide_secrets(error.message)  # type: ignore[misc]  # final in its annotations
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except Failed as failed:
        return failed.status
    except BrokenPipeError:  # the reader of a pipe has ended: `pathencoder list | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        return _report(error, state)
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def _any_text_prints() -> Iterator[None]:
    """Escape characters that standard output or standard error cannot encode."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [s.errors for s in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with contextlib.suppress(ValueError):  # closed meanwhile
                stream.reconfigure(errors=errors)


def _report(error: Exception, state: State) -> int:
    if state.debug:
        traceback.print_exc()
    elif isinstance(error, PathEncoderError | click.ClickException):
        click.echo(f"error: {hide_secrets(str(error))}", err=True)
    else:
        click.echo(f"error: {type(error).__name__}: {hide_secrets(str(error))}", err=True)
        click.echo(
            "This is a bug in pathencoder: run it again with --debug and report what it prints.",
            err=True,
        )
    return 2 if isinstance(error, ConfigError | UnknownEncoder) else 1
