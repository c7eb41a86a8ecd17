"""The `sets` command of training.evaluate: which sets are there, and where the others are had."""

from __future__ import annotations

from pathlib import Path

import click

from pathencoder.errors import PathEncoderError
from training.evaluation import shared_options
from training.evaluation.known_sets import KNOWN, KnownSet
from training.evaluation.set_lists import (
    FOLDER,
    differences,
    digest,
    entries_of,
    folder_of,
    how_to_obtain,
    write_list,
)


@click.command(name="sets", help=__doc__)
@shared_options.data_folder("Folder of the sets (docs/evaluation.md).")
@click.option(
    "--write-lists", is_flag=True, help="Write the lists of files in the repository again."
)
def sets(data: Path, *, write_lists: bool) -> None:
    """List the sets."""
    for known in KNOWN:
        try:
            click.echo(_line(known, data, write=write_lists))
        except PathEncoderError as error:
            raise click.ClickException(str(error)) from error


def _line(known: KnownSet, data: Path, *, write: bool) -> str:
    folder = folder_of(known, data)
    if folder is None:
        return f"missing   {how_to_obtain(known, data)}"
    entries = entries_of(folder / known.table)
    if write:
        write_list(FOLDER / f"{known.name}.csv.gz", entries)
    if differ := differences(known.name, entries):
        return f"different {known.name} in {folder}: {differ}"
    return f"there     {known.name} in {folder}: {len(entries):,} files, sha256 {digest(entries)}"
