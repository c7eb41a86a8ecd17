"""`python -m training.archive pack` and `verify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from pathencoder.cli.shard import Shard, as_shard
from pathencoder.errors import PathEncoderError
from pathencoder.text import counted
from training.archive.http import Stopped
from training.archive.pack.run import Packed, Where, pack
from training.archive.pack.settings import SUFFIXES, Settings
from training.archive.pack.tables import DUPLICATES, FAILED
from training.archive.pack.verify import verify
from training.archive.store import read_manifest

_SOME_FAILED = 3
_FILE = click.Path(path_type=Path)
_D = Settings()


@click.command(name="pack")
@click.argument("manifest", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="The folder for the shards.")
@click.option("--slides", type=_FILE, help="Where `fetch` put the slides; the manifest's folder.")
@click.option("--tiles", default=_D.tiles, show_default=True, help="Of a slide; 0: all.")
@click.option(
    "--mpp", type=float, multiple=True, help="Micrometres per pixel of tiles; 0.5. Repeat it."
)
@click.option("--tile-px", default=_D.tile_px, show_default=True, help="Side of a tile.")
@click.option("--codec", type=click.Choice(list(SUFFIXES)), default=_D.codec, show_default=True)
@click.option("--quality", default=_D.quality, show_default=True, help="Of the codec.")
@click.option("--min-tissue", default=_D.min_tissue, show_default=True, help="Share of a tile.")
@click.option(
    "--shard-mb", default=_D.shard_mb, type=float, show_default=True, help="Of a shard, about."
)
@click.option("--positions", is_flag=True, help="Choose tiles, and write only where they lie.")
@click.option("--split", multiple=True, help="Only slides of this split (train ...); all.")
@click.option("--processes", type=click.IntRange(1), help="Here; the cores of this process.")
@click.option("--shard", callback=as_shard, metavar="I/N", help="One of N shares of the work.")
@click.option("--ray", help="Spread the work over a Ray cluster: local, auto or HOST:PORT.")
@click.option("--again", is_flag=True, help="Try all slides again that failed.")
def pack_command(
    manifest: Path,
    out: Path,
    slides: Path | None,
    tiles: int,
    mpp: tuple[float, ...],
    tile_px: int,
    codec: str,
    quality: int,
    min_tissue: float,
    shard_mb: float,
    positions: bool,  # noqa: FBT001
    split: tuple[str, ...],
    processes: int | None,
    shard: Shard | None,
    ray: str | None,
    again: bool,  # noqa: FBT001
) -> None:
    """Cut the slides of a MANIFEST into tiles, in tar shards; run it again to go on."""
    try:
        settings = Settings(
            tiles=tiles,
            mpp=mpp or _D.mpp,
            tile_px=tile_px,
            codec="webp" if codec == "webp" else "jpeg",
            quality=quality,
            min_tissue=min_tissue,
            shard_mb=shard_mb,
            pixels=not positions,
        )
        share = (shard.number, shard.count) if shard else (1, 1)
        found = pack(
            read_manifest(manifest).rows,
            out.absolute(),
            settings,
            slides=(slides or manifest.parent).absolute(),
            splits=split,
            where=Where(processes, share, ray),
            again=again,
        )
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    except (Stopped, KeyboardInterrupt):
        click.echo("stopped: the same command goes on from here")
        sys.exit(130)
    click.echo("\n".join(summary(found)))
    if found.tables.failed or found.tables.damaged:
        sys.exit(_SOME_FAILED)


@click.command(name="verify")
@click.argument("shards", type=_FILE)
def verify_command(shards: Path) -> None:
    """Read the SHARDS of a folder again, and compare them with what was written."""
    try:
        problems = list(verify(shards))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join([*problems, f"{shards}: {len(problems) or 'no'} problems"]))
    if problems:
        sys.exit(_SOME_FAILED)


def summary(found: Packed) -> list[str]:
    """What a run did, and what there is now, as lines for a person."""
    tables = found.tables
    lines = [
        f"{counted(tables.tiles, 'tile')} of {counted(tables.slides, 'slide')} in"
        f" {counted(tables.shards, 'shard')}, {tables.bytes / 1e9:,.3f} GB"
    ]
    if found.left:
        busy = f", {found.busy} of them in other processes" if found.busy else ""
        groups = counted(found.left, "group of slides is", "groups of slides are")
        lines.append(f"{groups} not packed yet{busy}")
    if found.absent:
        named = ", ".join(found.absent[:3]) + " ..." * (len(found.absent) > 3)
        lines.append(
            f"{counted(len(found.absent), 'slide does', 'slides do')} not lie here, left out"
            f" ({named}): fetch them, or mount their drive, and run this again"
        )
    lines += _listed("slides gave no tiles", [f"{s}: {why}" for s, why in tables.failed], FAILED)
    damaged = [f"{slide}: {count} tiles: {why}" for slide, count, why in tables.damaged]
    lines += _listed("slides have tiles that cannot be read", damaged, "")
    pairs = [
        f"{one} and {other} ({'the same bytes' if how == 'bytes' else 'nearly the same picture'},"
        f" {splits})"
        for one, other, how, _, splits in tables.duplicates
    ]
    lines += _listed("pairs of slides look like one slide", pairs, DUPLICATES)
    if tables.alike:
        lines.append(f"{tables.alike:,} tiles nearly equal another tile of their slide")
    for note, count in sorted(tables.notes.items(), key=lambda item: -item[1])[:8]:
        lines.append(f"note on {counted(count, 'slide')}: {note}")
    return lines


def _listed(what: str, items: Sequence[str], file: str) -> list[str]:
    if not items:
        return []
    more = f"  and {len(items) - 10} more" + (f": see {file}" if file else "")
    return [
        f"{len(items)} {what}",
        *(f"  {item}" for item in items[:10]),
        *[more][: len(items) > 10],
    ]
