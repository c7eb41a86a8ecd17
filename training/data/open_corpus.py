"""A folder of tiles to a corpus: with slides.csv, with manifest.csv, or with images alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from training.data import by_slide, by_tile, shards
from training.data.corpus import Corpus
from training.data.manifest import Wanted

log = logging.getLogger(__name__)


def open_corpus(
    root: Path,
    *,
    licences: Sequence[str] = (),
    stains: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Corpus:
    """Index a folder.

    With slides.csv (a row a slide or part of one) or manifest.csv (a row a tile) beside tar shards:
    its rows that are used and of no held-out split. Else: every image below it that `encode` would
    take, the parent folder as the slide. What is left out is logged.

    Args:
        root: The folder.
        licences: Only rows of these licences (P, N); empty: all.
        stains: Only rows of these stain classes; empty: all.
        without: No rows of these sources (`src`).

    Returns:
        The tiles; none of them is decoded yet.

    Raises:
        ConfigError: Nothing is left, a table has a value that is not known, a patient or slide is
            in two splits, a filter asks for what the table lacks, or table and shards do not fit.
    """
    if not root.is_dir():
        raise ConfigError(f"data.root {str(root)!r} is not a folder")
    shards.close_files()
    wanted = Wanted(tuple(licences), tuple(stains), tuple(without))
    tables = [name for name in ("slides.csv", "manifest.csv") if (root / name).exists()]
    if len(tables) > 1:
        log.warning("%s has slides.csv and manifest.csv: slides.csv alone is read", root)
    if not tables:
        corpus = by_tile.read_folder(root, wanted)
    elif tables[0] == "slides.csv":
        corpus = by_slide.read(root, wanted)
    else:
        corpus = by_tile.read_shards(root, wanted)
    if corpus is None:
        asked = (
            f"with licences {wanted.licences or 'any'}, stains {wanted.stains or 'any'}, without"
            f" {wanted.without or 'none'}"
        )
        raise ConfigError(
            f"no tiles in {str(root)!r} {asked}. Wanted: images in any folder below it, or tar"
            " shards with a manifest.csv or slides.csv. The log says what was left out"
        )
    _say_what_is_odd(corpus)
    return corpus


def _say_what_is_odd(corpus: Corpus) -> None:
    if len(corpus.slide_names) == 1:
        log.warning(
            "all %d tiles belong to one slide (%r): batches cannot be balanced over slides, and"
            " what is learnt will be this slide's. Put the tiles of each slide into a folder of"
            " their own",
            len(corpus),
            corpus.slide_names[0],
        )
