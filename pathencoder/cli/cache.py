"""`pathencoder cache`: what the cache of features holds, and clearing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pathencoder.cli.common import debug_option, echo_json, json_option, plural, table
from pathencoder.walk import printable

if TYPE_CHECKING:
    from pathencoder.heads.cache import Entry


@click.command(short_help="Show and clear the cache of features.")
@click.option("--clear", is_flag=True, help="Delete the features.")
@click.option("--encoder", default=None, help="Only those of the encoder of this name.")
@json_option
@debug_option
def command(*, clear: bool, encoder: str | None, as_json: bool) -> None:
    """Show the features that `pathencoder fit` keeps, by encoder, or delete them.

    They lie in the user's folder for caches; the variable PATHENCODER_CACHE chooses another one.

    \b
    pathencoder cache
    pathencoder cache --clear --encoder pathencoder-tiny
    """
    from pathencoder.heads.cache import FeatureCache

    cache = FeatureCache.default()
    entries = [e for e in cache.entries() if encoder is None or e.encoder == encoder]
    if clear:
        entries = cache.clear(encoder)
    size = sum(entry.size for entry in entries)
    if as_json:
        shown = [_json(entry) for entry in entries]
        echo_json({"folder": str(cache.root), "bytes": size, "cleared": clear, "entries": shown})
        return
    if entries and not clear:
        click.echo(
            printable(table([["encoder", "images", "size", "read as"], *map(_row, entries)]))
        )
    images = plural(sum(entry.rows or 0 for entry in entries), "image")
    what = "deleted from" if clear else "in"
    click.echo(printable(f"features of {images}, {size / 1e6:,.1f} MB, {what} {cache.root}"))


def _row(entry: Entry) -> list[str]:
    if not entry.current:
        return [entry.encoder, "?", f"{entry.size / 1e6:,.1f} MB", f"{entry.version}: not read"]
    about = entry.about
    scale = about.get("image_mpp")
    read = [
        str(about.get("output", "?")),
        *([f"{about['views']} views"] if "views" in about else []),
        "whole" if scale is None else f"from {scale:g} um/px",
        str(about.get("precision", "?")),
        f"weights {str(about.get('digest', '?'))[:8]}",
    ]
    return [entry.encoder, f"{entry.rows:,}", f"{entry.size / 1e6:,.1f} MB", ", ".join(read)]


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "encoder": entry.encoder,
        "folder": str(entry.folder),
        "images": entry.rows,
        "bytes": entry.size,
        "version": entry.version,
        "current": entry.current,
        "views": entry.about.get("views", 1),
        **{k: entry.about.get(k) for k in ("output", "image_mpp", "precision", "digest", "sha256")},
    }
