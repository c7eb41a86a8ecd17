"""`pathencoder verify`: recompute an encoder's published embedding and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import (
    Failed,
    State,
    debug_option,
    device_option,
    echo_json,
    json_option,
    load,
    table,
)

if TYPE_CHECKING:
    from pathencoder.verify import Verification

_NO_REFERENCE = (
    "no reference embedding is published for it: there is nothing to compare. Its files are"
    " compared with their checksums when they are loaded, where these are known"
)


@click.command(short_help="Recompute the reference embedding.")
@click.argument("names", nargs=-1)
@device_option
@json_option
@debug_option
@click.pass_obj
def command(state: State, *, names: tuple[str, ...], device: str, as_json: bool) -> None:
    """Embed an encoder's reference tile and compare with the embedding that was published with it.

    NAMES: encoders, folders or owner/repo; all bundled ones by default. Exit status 1 if one
    differs or none can be compared, 2 for a name without a reference, 3 if some cannot.

    \b
    pathencoder verify
    pathencoder verify runs/dino/export owner/repo --device cuda
    """
    from pathencoder.errors import PathEncoderError
    from pathencoder.pretrained import catalogue

    found: list[dict[str, Any]] = []
    for name in names or catalogue.bundled():
        try:
            found.append(_facts(name, _verify(name, device)))
        except PathEncoderError as error:
            if state.debug or len(names) == 1:
                raise
            found.append({"name": name, "given": name, "ok": None, "reason": str(error)})
    if as_json:
        echo_json(found)
    else:
        click.echo(_table(found))
    raise Failed(_status([one["ok"] for one in found]))


def _verify(name: str, device: str) -> Verification:
    """The comparison for one name; nothing is downloaded where no reference is published."""
    from pathencoder.errors import ConfigError
    from pathencoder.pretrained import catalogue
    from pathencoder.verify import verify

    own = catalogue.find(name)
    if own is not None and own not in catalogue.bundled():
        raise ConfigError(f"{own}: {_NO_REFERENCE}")
    return verify(load(name, device=device))


def _facts(name: str, one: Verification) -> dict[str, Any]:
    limits = {"cosine": one.cosine, "max_abs": one.max_abs, "limit": one.limit}
    return {"name": one.name, "given": name, **limits, "ok": one.ok}


def _table(found: list[dict[str, Any]]) -> str:
    rows = []
    for one in found:
        if one["ok"] is None:
            rows.append([one["name"], "", "", "not compared"])
            continue
        result = "pass" if one["ok"] else f"FAIL (cosine below {one['limit']:g})"
        rows.append([one["name"], f"{one['cosine']:.7f}", f"{one['max_abs']:.2e}", result])
    text = table([["encoder", "cosine", "largest difference", "result"], *rows])
    reasons = [f"\n{one['reason']}" for one in found if one["ok"] is None]
    return "".join([text, *(["\n", *reasons] if reasons else [])])


def _status(results: list[bool | None]) -> int:
    """1 if one differs or none was compared, 3 if some were not compared."""
    if False in results or True not in results:
        return 1
    return 3 if None in results else 0
