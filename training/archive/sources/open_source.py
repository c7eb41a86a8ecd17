"""The source that a name means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.remote.objects import as_url, is_remote
from training.archive.row import Row
from training.archive.sources.base import Source
from training.archive.sources.folder import Folder
from training.archive.sources.gdc import Gdc
from training.archive.sources.grand_challenge import GrandChallenge
from training.archive.sources.idc import Idc
from training.archive.sources.objects import Objects
from training.data.values import nearest

# What stands before the colon -> the source of what stands after it.
NAMED: dict[str, Callable[[str], Source]] = {
    "folder": lambda rest: Folder(Path(rest)),
    "gdc": lambda rest: Gdc(rest.partition("/")[0], rest.partition("/")[2] or "diagnostic"),
    "idc": Idc,
    "grand-challenge": GrandChallenge,
}


def open_source(name: str) -> Source:
    """The source of a name.

    Args:
        name: A folder or file, s3://, gs:// or az://, gdc:PROJECT[/diagnostic|/tissue],
            idc:COLLECTION, or grand-challenge:SLUG. The column `src` holds the same.

    Raises:
        ConfigError: There is no such source.
    """
    kind, colon, rest = name.partition(":")
    if is_remote(name):
        if name.lower().startswith("http"):
            raise ConfigError(
                f"{name}: a web server does not list its files. Name a store (s3://, gs://, az://)"
            )
        return Objects(as_url(name))
    if colon and kind in NAMED and rest:
        return NAMED[kind](rest)
    if Path(name).expanduser().exists() or "/" in name:
        return Folder(Path(name))
    raise ConfigError(
        f"{name}: no such folder, and no source{nearest(kind, NAMED)}. Sources are folders,"
        " s3://, gs://, az://, gdc:TCGA-BRCA, idc:tcga_brca, grand-challenge:SLUG"
    )


def place_of(row: Row, slides: Path) -> Path:
    """Where a slide can be read: in its folder, else where `fetch` puts it.

    Args:
        row: The slide.
        slides: The folder of downloads.
    """
    if row.src.startswith("folder:"):
        there = Folder(Path(row.src.removeprefix("folder:"))).place(row)
        if there.exists():
            return there
    return slides / row.file
