"""Count the evaluation images that a run was trained on.

python -m training.publishing.overlap RUN NAME=LABELS.csv ... --json OVERLAP.json

RUN is a run's folder whose tiles are still there; NAME is a set as the evaluation names it, and
LABELS.csv its table, in the folder of its images. Counted are images whose pixels equal those of a
training tile, images that are nearly equal to one (64-bit difference hashes of grey values that
differ in at most 2 bits: another compression, or another size of the same tile), and groups with
the name of a training slide.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathencoder.errors import ConfigError, ImageError, PathEncoderError
from pathencoder.images import open_image
from training import config
from training.data.tiles import Corpus
from training.evaluation.probe import read_labels
from training.files import write_text
from training.from_config import corpus_of

_BITS = 2
_FLAT = 6  # bits: fewer set, or fewer unset, means an almost empty picture


@dataclass(frozen=True)
class Overlap:
    """What a set shares with the training tiles.

    Attributes:
        images: Images of the set.
        equal: Those with the pixels of a training tile.
        near: Others that are nearly equal to one.
        groups: Groups with the name of a training slide.
        examples: The first of the images.
    """

    images: int
    equal: int
    near: int
    groups: int
    examples: tuple[str, ...]


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("sets", nargs=-1, required=True, metavar="NAME=LABELS.csv...")
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
def main(run: Path, sets: tuple[str, ...], out: Path) -> None:
    """Count overlaps."""
    try:
        corpus = corpus_of(config.load(run / "config.yaml"))
        tables = [_named(text) for text in sets]
        known = seen(corpus)
        found = {}
        for name, table in tables:
            found[name] = overlap(known, set(corpus.slide_names), table)
            click.echo(f"{name}: {found[name]}")
        content = {
            "tiles": corpus.digest,
            "unreadable": known.unreadable,
            "sets": {name: dataclasses.asdict(one) for name, one in found.items()},
        }
        write_text(out, json.dumps(content, indent=1) + "\n")
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


@dataclass(frozen=True)
class Seen:
    """The training tiles: the sha256 of their pixels, and their difference hashes [N].

    `unreadable` tiles are left out.
    """

    pixels: frozenset[str]
    hashes: NDArray[np.uint64]
    unreadable: int


def seen(corpus: Corpus) -> Seen:
    """What is known of training tiles."""
    pixels, hashes, unreadable = set(), [], 0
    for index in range(len(corpus)):
        try:
            tile = corpus.read(index)
        except ImageError:
            unreadable += 1
            continue
        pixels.add(_sha256(tile))
        hashes.append(difference_hash(tile))
    return Seen(frozenset(pixels), np.array(hashes, np.uint64), unreadable)


def overlap(known: Seen, slides: set[str], table: Path) -> Overlap:
    """Compare a set with training tiles.

    Args:
        known: The training tiles.
        slides: The names of their slides.
        table: The set's labels.csv, in the folder of its images.

    Raises:
        ConfigError: The table cannot be read.
        ImageError: An image cannot be read.
    """
    labels = read_labels(table)
    equal, near = [], []
    for file in labels.files:
        image = open_image(table.parent / file)
        if _sha256(image) in known.pixels:
            equal.append(file)
        elif _is_near(difference_hash(image), known.hashes):
            near.append(file)
    groups = set(labels.groups.tolist()) & slides
    examples = (*equal, *near)[:5]
    return Overlap(len(labels.files), len(equal), len(near), len(groups), examples)


def difference_hash(image: NDArray[np.uint8]) -> int:
    """64 bits: whether each of 8 x 8 grey values is above that to its left (Krawetz 2013)."""
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey, np.int16)
    return int.from_bytes(np.packbits(values[:, 1:] > values[:, :-1]).tobytes(), "big")


def _is_near(one: int, others: NDArray[np.uint64]) -> bool:
    """Whether one of the hashes differs in a few bits; an almost empty picture is near nothing."""
    if not _FLAT <= one.bit_count() <= 64 - _FLAT or not len(others):
        return False
    differing = (others ^ np.uint64(one)).view(np.uint8).reshape(-1, 8)
    return bool((np.unpackbits(differing, axis=1).sum(1) <= _BITS).any())


def _sha256(image: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _named(text: str) -> tuple[str, Path]:
    name, given, table = text.partition("=")
    if not given or not name:
        raise ConfigError(f"{text!r}: write NAME=LABELS.csv, the set as the evaluation names it")
    return name, Path(table)


if __name__ == "__main__":
    sys.exit(main())
