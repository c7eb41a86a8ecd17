r"""From an archive to shards: list its slides, bring them here, cut them into tiles.

\b
python -m training.archive manifest /data/slides gdc:TCGA-BRCA --out manifest.parquet
python -m training.archive check manifest.parquet
python -m training.archive fetch manifest.parquet --out slides/
python -m training.archive pack manifest.parquet --slides slides/ --out shards/
python -m training.archive verify shards/

A SOURCE is a folder, s3://, gs:// or az://, gdc:PROJECT[/tissue], idc:COLLECTION or
grand-challenge:SLUG. Every command can be stopped and run again.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

import click

from pathencoder.errors import ConfigError, PathEncoderError
from pathencoder.text import counted
from training.archive.about import NOTHING, read_about
from training.archive.build import Built, Options, build, record
from training.archive.checked import is_waiting
from training.archive.fetch import MISSING, fetch, summary
from training.archive.http import Stopped
from training.archive.pack.command import pack_command, verify_command
from training.archive.row import Row
from training.archive.rows import Defaults
from training.archive.sources.open_source import open_source
from training.archive.splits import parse_shares
from training.archive.store import csv_of, is_there, read_manifest
from training.data import licences
from training.data.manifest import STAIN_CLASSES

_SOME_FAILED = 3
_FILE = click.Path(path_type=Path)


@click.group(help=__doc__)
def main() -> None:
    """From an archive to shards."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


main.add_command(pack_command)
main.add_command(verify_command)


@main.command()
@click.argument("sources", nargs=-1)
@click.option("--out", type=_FILE, required=True, help="NAME.parquet; NAME.csv lies beside it.")
@click.option("--about", type=_FILE, help="A table with slide and patient, organ, stain_class ...")
@click.option("--stain", type=click.Choice(STAIN_CLASSES), help="Where no name states it.")
@click.option("--organ", default="", help="Where nothing states it.")
@click.option("--licence", default="", help="Where the source states none: CC-BY-4.0, P, N ...")
@click.option("--split", help="Shares of the patients; train=0.9,val=0.05,test=0.05 at first.")
@click.option("--exclude", type=_FILE, multiple=True, help="A list of an evaluation set (CSV).")
@click.option("--key", type=_FILE, help="Secret of the patients' codes; NAME.key beside --out.")
@click.option("--hash/--no-hash", "hashed", default=True, help="sha256 of the files that lie here.")
@click.option("--look/--no-look", default=True, help="Guess unnamed stains by their colours.")
@click.option("--processes", default=0, help="For reading; 0: the cores of this process.")
@click.option("--accept-removed", is_flag=True, help="Rows that you removed come back with use=0.")
def manifest(
    sources: tuple[str, ...],
    out: Path,
    about: Path | None,
    stain: str | None,
    organ: str,
    licence: str,
    split: str | None,
    exclude: tuple[Path, ...],
    key: Path | None,
    hashed: bool,  # noqa: FBT001
    look: bool,  # noqa: FBT001
    processes: int,
    accept_removed: bool,  # noqa: FBT001
) -> None:
    """List the slides of SOURCES in a manifest, or add them to one.

    Edit NAME.csv, or NAME.parquet: what you change stays in later runs. Without SOURCES only your
    edits are taken.
    """
    try:
        if not sources and not is_there(out):
            raise ConfigError("name at least one SOURCE: a folder, or gdc:TCGA-BRCA, for example")
        options = Options(
            about=read_about(about) if about else NOTHING,
            defaults=Defaults(stain or "", organ, _licence(licence)),
            shares=parse_shares(split) if split else None,
            key=key,
            exclude=exclude,
            hashed=hashed,
            look=look,
            processes=processes,
            accept_removed=accept_removed,
        )
        built = build([open_source(name) for name in sources], out, options)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    _print_built(built, out)
    if built.failed:
        sys.exit(_SOME_FAILED)


@main.command()
@click.argument("file", type=_FILE)
def check(file: Path) -> None:
    """Check a manifest that you edited: every problem in one list."""
    try:
        found = read_manifest(file)
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(_counts(found.rows)))
    edits = f", {found.edits} rows edited by hand" if found.edits else ""
    click.echo(f"{file}: nothing is wrong{edits}")
    if waiting := sum(is_waiting(row) for row in found.rows):
        slides = counted(waiting, "slide has another patient", "slides have another patient")
        click.echo(f"{slides}: before pack, run manifest --out {file}, which gives code and split")


@main.command(name="fetch")
@click.argument("file", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="The folder for the slides.")
@click.option("--together", default=4, show_default=True, help="Slides at a time.")
@click.option("--copy", "copy_local", is_flag=True, help="Copy slides of local folders, too.")
@click.option("--exclude", type=_FILE, multiple=True, help="A list of an evaluation set (CSV).")
@click.option("--key", type=_FILE, help="Secret of the patients' codes, as for manifest.")
def fetch_command(
    file: Path,
    out: Path,
    together: int,
    copy_local: bool,  # noqa: FBT001
    exclude: tuple[Path, ...],
    key: Path | None,
) -> None:
    """Bring the slides of a manifest here; run it again to go on."""
    try:
        rows = read_manifest(file).rows
        found = fetch(rows, out, together=together, copy_local=copy_local)
        new = record(file, found.sha256, Options(key=key, exclude=exclude))
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error
    except Stopped:
        sys.exit(130)
    click.echo("\n".join(summary(found)))
    if new:
        slides = counted(new, "slide")
        click.echo(f"of evaluation sets, by their sha256: {slides}, with use=0 now")
    if found.missing:
        click.echo(f"what is missing, and why: {out / MISSING}")
        sys.exit(_SOME_FAILED)


def _licence(text: str) -> str:
    try:
        return licences.read(text)
    except ValueError as error:
        raise ConfigError(f"--licence {text}: {error}") from None


def _print_built(built: Built, out: Path) -> None:
    click.echo("\n".join(_counts(built.manifest.rows)))
    for line in built.left_out[:20]:
        click.echo(f"left out: {line}")
    for note in built.notes:
        click.echo(f"note: {note}")
    for name, reason in built.failed:
        click.echo(f"not listed: {name}: {reason}")
    read = counted(built.measured, "slide was read", "slides were read")
    click.echo(f"{out} and {csv_of(out).name}: {read} in this run")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _counts(rows: list[Row]) -> list[str]:
    """Slides, patients, bytes and stains, as lines for a person."""
    used = [row for row in rows if row.use and not row.problem]
    patients = len({row.patient for row in rows if row.patient})
    size = sum(row.size or 0 for row in rows)
    slides, people = counted(len(rows), "slide"), counted(patients, "patient")
    lines = [f"{slides} of {people}, {_gigabytes(size)}; {len(used):,} usable"]
    for title, values in (
        ("source", [row.src for row in rows]),
        ("stain", [row.stain_class for row in rows]),
        ("split", [row.split for row in rows]),
    ):
        counts = ", ".join(f"{name} {n}" for name, n in Counter(values).most_common(12))
        lines.append(f"  {title}: {counts}")
    return lines


if __name__ == "__main__":
    main()
