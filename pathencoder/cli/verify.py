"""`pathencoder verify`: recompute an encoder's published embedding and compare."""

from __future__ import annotations

import dataclasses

import click

from pathencoder.cli.common import (
    Failed,
    debug_option,
    device_option,
    echo_json,
    json_option,
    load,
    table,
)


@click.command(short_help="Recompute the reference embedding.")
@click.argument("names", nargs=-1)
@device_option
@json_option
@debug_option
def command(*, names: tuple[str, ...], device: str, as_json: bool) -> None:
    """Embed an encoder's reference tile and compare with the embedding that was published with it.

    NAMES: encoders or folders; all bundled ones by default. Exit status 1 if one differs.

    \b
    pathencoder verify
    pathencoder verify runs/dino/export --device cuda
    """
    from pathencoder.pretrained import catalogue
    from pathencoder.verify import verify

    found = [verify(load(name, device=device)) for name in names or catalogue.bundled()]
    if as_json:
        echo_json([{**dataclasses.asdict(v), "ok": v.ok} for v in found])
    else:
        head = ["encoder", "cosine", "largest difference", "result"]
        rows = [
            [
                v.name,
                f"{v.cosine:.7f}",
                f"{v.max_abs:.2e}",
                "pass" if v.ok else f"FAIL (cosine below {v.limit:g})",
            ]
            for v in found
        ]
        click.echo(table([head, *rows]))
    raise Failed(0 if all(v.ok for v in found) else 1)
