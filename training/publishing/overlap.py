"""Count the evaluation images that an encoder was trained on.

python -m training.publishing.overlap RUN [NAME=LABELS.csv ...] --json OVERLAP.json

RUN is a run's folder whose tiles are still there, or the name of a bundled encoder or network.
NAME is a set as the evaluation names it, and LABELS.csv its table, in the folder of its images;
without any, all known sets below --data. Counted are images whose pixels equal those of a training
tile, images that are nearly equal to one (64-bit difference hashes of grey values that differ in
at most 2 bits: another compression, or another size of the same tile), and groups with the name of
a training slide or of the same patient of TCGA. A tile that is a part of a larger image is found
by its group alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations
from numpy.typing import NDArray
from PIL import Image

from pathencoder.errors import ConfigError, ImageError, PathEncoderError
from pathencoder.images import open_image
from pathencoder.nuclei.weights import BUNDLED as NUCLEI
from pathencoder.pretrained.folder import METRICS, parse_config, sha256_of
from pathencoder.tables import read_table
from training import config
from training.data.corpus import open_corpus
from training.data.tiles import Corpus
from training.evaluation.known_sets import KNOWN
from training.evaluation.probe import read_labels
from training.evaluation.set_lists import folder_of
from training.files import write_text
from training.from_config import corpus_of
from training.provenance.record import Provenance
from training.publishing.card import RECORD, ROOT, recorded

_BITS = 2
_FLAT = 6  # bits: fewer set, or fewer unset, means an almost empty picture
_NAMELESS = {"", "unknown"}  # in the column slide_id
_NEEDED = ("images", "equal", "near", "groups")
_PATIENT = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")


@dataclass(frozen=True)
class Overlap:
    """What a set shares with the training tiles.

    Attributes:
        images: Images of the set.
        equal: Those with the pixels of a training tile.
        near: Others that are nearly equal to one.
        groups: Groups with the name of a training slide, or of the same patient of TCGA.
        named_groups: Groups that have a name at all.
        held_out: Images of the set that are in no train part.
        held_out_found: Those of them that are equal or near.
        held_out_groups: Groups of held-out images that are counted in `groups`.
        examples: The first of the images.
    """

    images: int
    equal: int
    near: int
    groups: int
    named_groups: int
    held_out: int
    held_out_found: int
    held_out_groups: int
    examples: tuple[str, ...]


@click.command(help=__doc__)
@click.argument("run")
@click.argument("sets", nargs=-1, metavar="[NAME=LABELS.csv]...")
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data"),
    show_default=True,
    help="Folder of the known sets.",
)
def main(run: str, sets: tuple[str, ...], out: Path, data: Path) -> None:
    """Count overlaps."""
    try:
        tables = dict(map(_named, sets)) or _known(data, nuclei=run == NUCLEI)
        known, names, digest = _trained_on(run, data)
        found = {}
        for name, table in tables.items():
            found[name] = overlap(known, names, table)
            click.echo(f"{name}: {found[name]}")
        content = {
            "tiles": digest,
            "unreadable": known.unreadable,
            "sets": {name: dataclasses.asdict(one) for name, one in found.items()},
        }
        write_text(out, json.dumps(content, indent=1) + "\n")
    except PathEncoderError as error:
        raise click.ClickException(str(error)) from error


def _trained_on(run: str, data: Path) -> tuple[Seen, set[str], str]:
    """What is known of the training images, the names of their slides, and their digest."""
    if run != NUCLEI:
        corpus = tiles_of(run)
        tiles = (functools.partial(corpus.read, index) for index in range(len(corpus)))
        return seen(tiles), set(corpus.slide_names), corpus.digest
    table = data / "nuclei/monuseg/meta.csv"
    rows = [row for row in _rows(table) if row[2] == "train"]
    images = (functools.partial(open_image, table.parent / file) for file, _, _ in rows)
    return seen(images), {group for _, group, _ in rows}, sha256_of(table)


def tiles_of(run: str, root: Path = ROOT) -> Corpus:
    """The training tiles of a run's folder, or of a bundled encoder.

    Args:
        run: A folder, or a name of `recorded`.
        root: The folder of model_cards/.

    Raises:
        ConfigError: It is neither, or its tiles cannot be read, or are no longer there.
    """
    if Path(run).is_dir():
        return corpus_of(config.load(Path(run) / "config.yaml"))
    if run not in recorded(root):
        raise ConfigError(
            f"{run}: no folder of a run, and no bundled encoder: {', '.join(recorded(root))}"
        )
    first = min((root / "model_cards" / run).glob("config*.yaml"))
    data: Mapping[str, Any] = yaml.safe_load(first.read_text())["data"]
    open_ = functools.partial(
        open_corpus,
        data["root"],
        licences=tuple(data["licences"]),
        stains=tuple(data["stains"]),
        share=float(data.get("share", 1)),
    )
    record = parse_config(root / "model_cards" / run / RECORD)
    digest = record.get("corpus", {}).get("digest")
    corpus = open_(without=tuple(data["without"]))
    if corpus.digest != digest:  # a corpus that has grown since: the sources on the card alone
        corpus = open_(without=_others(root / "pathencoder/weights" / run, Path(data["root"])))
    if corpus.digest != digest:
        raise ConfigError(
            f"{data['root']} holds {len(corpus):,} tiles of the sources of {run}, which are not"
            " those that it was trained on: restore them"
        )
    return corpus


def _others(folder: Path, root: Path) -> tuple[str, ...]:
    """The sources of a corpus that are not on the card of an encoder's folder."""
    rows = parse_config(folder / METRICS)["training"].get("sources", [])
    known = {source for source, *_ in rows}
    table = read_table(root / "manifest.csv", required=("src",))
    return tuple(sorted({row["src"] for row in table.rows} - known))


def counted(file: Path, made_from: Provenance, run: Path) -> dict[str, Any]:
    """The sets in a file that this command wrote.

    Args:
        file: The file.
        made_from: The record of the run that a card is about.
        run: Its folder, for the message.

    Raises:
        ConfigError: It is of other tiles than the record, or no file of this command.
    """
    again = (
        f"count again, python -m training.publishing.overlap {run} NAME=LABELS.csv --json {file}"
    )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        tiles, sets = found["tiles"], {name: dict(one) for name, one in found["sets"].items()}
        _ = [int(one[key]) for one in sets.values() for key in _NEEDED]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no file of training.publishing.overlap ({type(error).__name__}: {error}):"
            f" {again}"
        ) from error
    if tiles != made_from.corpus.digest:
        raise ConfigError(f"{file} is of other training tiles than {run}: {again}")
    return sets


def _known(data: Path, *, nuclei: bool) -> dict[str, Path]:
    """The tables of the known sets that are there; of the nuclei network all sets of nuclei."""
    if nuclei:
        return {file.parent.name: file for file in sorted((data / "nuclei").glob("*/meta.csv"))}
    found = {s.name: folder / s.table for s in KNOWN if (folder := folder_of(s, data))}
    if not found:
        raise ConfigError(f"no known set below {data}: --data, or NAME=LABELS.csv")
    return found


@dataclass(frozen=True)
class Seen:
    """The training tiles: the sha256 of their pixels, and their difference hashes [N].

    `unreadable` tiles are left out.
    """

    pixels: frozenset[str]
    hashes: NDArray[np.uint64]
    unreadable: int


def seen(images: Iterable[Callable[[], NDArray[np.uint8]]]) -> Seen:
    """What is known of training images, each given by what reads it."""
    pixels, hashes, unreadable = set(), [], 0
    for read in images:
        try:
            image = read()
        except ImageError:
            unreadable += 1
            continue
        pixels.add(_sha256(image))
        hashes.append(difference_hash(image))
    return Seen(frozenset(pixels), np.array(hashes, np.uint64), unreadable)


def overlap(known: Seen, slides: set[str], table: Path) -> Overlap:
    """Compare a set with training tiles.

    Args:
        known: The training tiles.
        slides: The names of their slides.
        table: The set's labels.csv or meta.csv, in the folder of its images.

    Raises:
        ConfigError: The table cannot be read.
        ImageError: An image cannot be read.
    """
    rows = _rows(table)
    names = slides | _patients(slides)
    equal, near = [], []
    for file, _, _ in rows:
        image = open_image(table.parent / file)
        if _sha256(image) in known.pixels:
            equal.append(file)
        elif _is_near(difference_hash(image), known.hashes):
            near.append(file)
    found = {*equal, *near}
    held_out = [(file, group) for file, group, part in rows if part != "train"]
    return Overlap(
        images=len(rows),
        equal=len(equal),
        near=len(near),
        groups=_seen_groups((group for _, group, _ in rows), names),
        named_groups=len({group for _, group, _ in rows} - _NAMELESS),
        held_out=len(held_out),
        held_out_found=sum(file in found for file, _ in held_out),
        held_out_groups=_seen_groups((group for _, group in held_out), names),
        examples=(*equal, *near)[:5],
    )


def _rows(table: Path) -> Sequence[tuple[str, str, str]]:
    """File, group and part of each image of a set."""
    if table.name == "meta.csv":
        rows = read_table(table, ("file", "slide_id", "split"), last_is_text=True).rows
        return [(row["file"], row["slide_id"], row["split"]) for row in rows]
    labels = read_labels(table)
    groups, parts = labels.groups.tolist(), labels.split.tolist()
    return list(zip(labels.files, groups, parts, strict=True))


def _seen_groups(groups: Iterable[str], names: set[str]) -> int:
    named = set(groups) - _NAMELESS
    return sum(group in names or bool(_patients([group]) & names) for group in named)


def _patients(names: Iterable[str]) -> set[str]:
    """The patients of TCGA in names."""
    return {match[0] for name in names if (match := _PATIENT.search(name))}


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
