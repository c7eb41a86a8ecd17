"""Open tiles as a corpus: with slides.csv, with manifest.csv, images alone or shards alone.

A slides.csv may also list positions on slides, which are then read as they are needed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.remote.objects import as_url, is_remote
from training.data import by_manifest, by_slide, by_tile, on_slides, open_files
from training.data.joined import joined
from training.data.manifest import STAIN_CLASSES, Wanted
from training.data.remote import Bucket
from training.data.sources import Folder, Source
from training.data.tiles import Corpus

__all__ = ["STAIN_CLASSES", "Corpus", "open_corpus", "with_slides"]

log = logging.getLogger(__name__)

_TABLES = ("slides.csv", "manifest.csv")


def open_corpus(
    root: Path | str,
    *,
    licences: Sequence[str] = (),
    stains: Sequence[str] = (),
    without: Sequence[str] = (),
    share: float = 1.0,
    cache_mb: int = 0,
) -> Corpus:
    """Index a folder, or a URL of an object store.

    With slides.csv (a row per slide or part of a slide) or manifest.csv (a row per tile) and tar
    shards: the rows that are used and not of a held-out split. Otherwise: every image in the folder
    that `encode` accepts, whose parent folder is the slide; where there is none, every image in the
    tars below the folder. What is left out is logged.

    Args:
        root: The folder, or its URL (s3://, gs://, az://, https://), which needs tar shards with
            slides.csv, or shards alone.
        licences: Only rows of these classes (P, N) or licences; empty: all.
        stains: Only rows of these stain classes; empty: all.
        without: No rows of these sources (`src`).
        share: Only this share of the patients, chosen by a hash: larger shares hold smaller ones.
        cache_mb: Space on the local disk for tiles of an object store, in MB.

    Returns:
        The tiles, not decoded.

    Raises:
        ConfigError: No tile is left, a table has an unknown value, a patient or slide is in two
            splits, a filter asks for what the table lacks, or table and shards do not match.
        SlideError: An object store cannot be listed.
        StoreError: An object store cannot be read.
    """
    wanted = Wanted(tuple(licences), tuple(stains), tuple(without), share)
    source = _source(root, cache_mb)
    open_files.close_files()
    tables = {name: file for name in _TABLES if (file := source.table(name)) is not None}
    if len(tables) > 1:
        log.warning("%s has slides.csv and manifest.csv: only slides.csv is read", root)
    corpus = _read(source, tables, wanted)
    if corpus is None:
        asked = (
            f"with licences {wanted.licences or 'any'}, stains {wanted.stains or 'any'}, without"
            f" {wanted.without or 'none'}"
        )
        raise ConfigError(
            f"no tiles in {str(source.place(''))!r} {asked}. It must hold images, in any subfolder,"
            " or tar shards, with manifest.csv or slides.csv or without. The log says what was left"
            " out"
        )
    _warn_of_one_slide(corpus)
    return corpus


def with_slides(
    corpus: Corpus,
    positions: Path,
    *,
    licences: Sequence[str] = (),
    stains: Sequence[str] = (),
    without: Sequence[str] = (),
    share: float = 1.0,
) -> Corpus:
    """A corpus and the tiles of slides that it does not hold, which are read as they are needed.

    Args:
        corpus: The tiles of shards.
        positions: A folder of positions on slides.
        licences: As for `open_corpus`, as are the next three.
        stains: Of the slides.
        without: Sources.
        share: Of the patients.

    Returns:
        Both; `corpus` itself where it holds all slides.

    Raises:
        ConfigError: As for `open_corpus`.
    """
    but = frozenset(corpus.slide_names)
    wanted = Wanted(tuple(licences), tuple(stains), tuple(without), share, but)
    found = on_slides.read(positions / "slides.csv", Folder(positions), wanted)
    if found is None:
        log.info("the shards hold all slides: none is read from its file")
        return corpus
    log.info(
        "%d slides are read from their files: the shards do not hold them", len(found.slide_names)
    )
    return joined(corpus, found)


def _source(root: Path | str, cache_mb: int) -> Source:
    if is_remote(root):
        return Bucket(as_url(str(root)), cache_mb)
    if not Path(root).is_dir():
        raise ConfigError(f"data.root {str(root)!r} is not a folder")
    return Folder(Path(root))


def _read(source: Source, tables: Mapping[str, Path], wanted: Wanted) -> Corpus | None:
    if "slides.csv" in tables:
        if isinstance(source, Folder) and on_slides.is_of_positions(tables["slides.csv"]):
            return on_slides.read(tables["slides.csv"], source, wanted)
        return by_slide.read(tables["slides.csv"], source, wanted)
    if not isinstance(source, Folder):
        if tables:
            raise ConfigError(
                f"{source.place('manifest.csv')}: a manifest of tiles is read from a folder only."
                " Add a slides.csv, a row for each slide"
            )
        return by_slide.read_tars(source, wanted)
    if tables:
        return by_manifest.read(tables["manifest.csv"], source, wanted)
    return by_tile.read_folder(source.root, wanted) or by_slide.read_tars(source, wanted)


def _warn_of_one_slide(corpus: Corpus) -> None:
    if len(corpus.slide_names) == 1:
        log.warning(
            "all %d tiles belong to one slide (%r): batches cannot be balanced over slides, and"
            " the encoder will learn this slide only. Put the tiles of each slide into a separate"
            " folder",
            len(corpus),
            corpus.slide_names[0],
        )
