"""`pathencoder fetch`: download encoders, to work without network."""

from __future__ import annotations

from pathlib import Path

import click

from pathencoder.cli.common import Failed, State, debug_option, echo_json, json_option


@click.command(short_help="Download encoders, to work without network.")
@click.argument("names", nargs=-1, required=True)
@click.option("--revision", default=None, help="Revision on the Hub; for one NAME.")
@json_option
@debug_option
@click.pass_obj
def command(state: State, *, names: tuple[str, ...], revision: str | None, as_json: bool) -> None:
    """Download NAMES into the Hugging Face cache and compare their checksums.

    Afterwards they also load with `HF_HUB_OFFLINE=1`.

    \b
    pathencoder fetch phikon h-optimus-0
    HF_TOKEN=... pathencoder fetch uni2-h
    """
    from pathencoder.errors import PathEncoderError, UnknownEncoder
    from pathencoder.pretrained import locate

    if revision and len(names) > 1:
        raise click.UsageError("--revision goes with one NAME")
    done: list[dict[str, object]] = []
    failed: list[dict[str, object]] = []
    for name in names:
        click.echo(f"{name} ...", err=True)
        try:
            located = locate.fetch(name, revision=revision)
        except PathEncoderError as error:
            if state.debug:
                raise
            failed.append({"name": name, "error": type(error).__name__, "reason": str(error)})
            click.echo(str(error) if str(error).startswith(name) else f"{name}: {error}", err=True)
            continue
        done.append(
            {"name": name, "weights": str(located.weights), "bytes": located.weights.stat().st_size}
        )
        if not as_json:
            click.echo(f"{name}: {_size(located.weights)} in {located.weights}")
    if as_json:
        echo_json({"fetched": done, "failed": failed})
    unknown = all(one["error"] == UnknownEncoder.__name__ for one in failed)
    raise Failed(0 if not failed else 3 if done else 2 if unknown else 1)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
