"""Open a folder of tiles as a corpus: with slides.csv, with manifest.csv, or images alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from training.data import by_slide, by_tile, open_files
from training.data.manifest import STAIN_CLASSES, Wanted
from training.data.sources import Folder
from training.data.tiles import Corpus

__all__ = ["STAIN_CLASSES", "Corpus", "open_corpus"]

log = logging.getLogger(__name__)


def open_corpus(
    root: Path,
    *,
    licences: Sequence[str] = (),
    stains: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Corpus:
    """Index a folder.

    With slides.csv (a row per slide or part of a slide) or manifest.csv (a row per tile) and tar
    shards: the rows that are used and not of a held-out split. Otherwise: every image in the folder
    that `encode` accepts; the parent folder is the slide. What is left out is logged.

    Args:
        root: The folder.
        licences: Only rows of these licences (P, N); empty: all.
        stains: Only rows of these stain classes; empty: all.
        without: No rows of these sources (`src`).

    Returns:
        The tiles, not decoded.

    Raises:
        ConfigError: No tile is left, a table has an unknown value, a patient or slide is in two
            splits, a filter asks for what the table lacks, or table and shards do not match.
    """
    if not root.is_dir():
        raise ConfigError(f"data.root {str(root)!r} is not a folder")
    open_files.close_files()
    wanted = Wanted(tuple(licences), tuple(stains), tuple(without))
    tables = [name for name in ("slides.csv", "manifest.csv") if (root / name).exists()]
    if len(tables) > 1:
        log.warning("%s has slides.csv and manifest.csv: only slides.csv is read", root)
    if not tables:
        corpus = by_tile.read_folder(root, wanted)
    elif tables[0] == "slides.csv":
        corpus = by_slide.read(root / tables[0], Folder(root), wanted)
    else:
        corpus = by_tile.read_shards(root, Folder(root), wanted)
    if corpus is None:
        asked = (
            f"with licences {wanted.licences or 'any'}, stains {wanted.stains or 'any'}, without"
            f" {wanted.without or 'none'}"
        )
        raise ConfigError(
            f"no tiles in {str(root)!r} {asked}. It must hold images, in any subfolder, or tar"
            " shards with a manifest.csv or slides.csv. The log says what was left out"
        )
    _warn_of_one_slide(corpus)
    return corpus


def _warn_of_one_slide(corpus: Corpus) -> None:
    if len(corpus.slide_names) == 1:
        log.warning(
            "all %d tiles belong to one slide (%r): batches cannot be balanced over slides, and"
            " the encoder will learn this slide only. Put the tiles of each slide into a separate"
            " folder",
            len(corpus),
            corpus.slide_names[0],
        )
