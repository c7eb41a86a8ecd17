"""A folder of images and labels: in folders images/ and masks/, or beside each other by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.data.listing import (
    LABEL_SUFFIXES,
    Found,
    Listing,
    preferred,
    source_of,
)
from pathencoder.heads.data.truth import Kind
from pathencoder.images import SUFFIXES as IMAGES
from pathencoder.walk import printable, walk

# words in the names of folders: "images", "Tissue Images", "train_masks", "inst_maps"
_OF_IMAGES = frozenset({"image", "images", "img", "imgs", "tiles"})
_OF_LABELS = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "annos", "gt", "groundtruth"}
    | {"truth", "instances", "inst", "points", "geojson", "xml"}
)
_DRAWN = re.compile(r"(?:.*[._ -])?overlays?", re.IGNORECASE)  # labels drawn on their image
_TYPES = re.compile(r".*[._ -]types?", re.IGNORECASE)  # classes beside a map of objects
_END = re.compile(
    r"[._ -](?:masks?|labels?|anno|annotations?|gt|groundtruth|ground_truth|inst|instances?"
    r"|instancemap|seg|segmentation|points)$",
    re.IGNORECASE,
)
_PART = re.compile(r"(train|training|val|valid|validation|dev|test|testing|fold)[ _-]?([a-z]?|\d+)")
_PART_OF_NAME = re.compile(r"(train|val|valid|test)([A-Z]?)[ _-]\d+.*", re.IGNORECASE)
_SHOWN = 3


class Key(NamedTuple):
    """What an image and its labels have in common: folders without images/ and masks/, stem."""

    folders: tuple[str, ...]
    stem: str


@dataclass
class Sorted:
    """The files of a folder by what they are.

    Attributes:
        images: Each with its key.
        labels: The files of labels of each key.
        others: Overlays, and what else is neither.
    """

    images: dict[Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    labels: dict[Key, list[Path]] = field(default_factory=lambda: defaultdict(list))
    others: list[Path] = field(default_factory=list)


def read_pairs(root: Path, kind: Kind) -> Listing:
    """List a folder of images with labels.

    Labels lie in a folder named masks, labels or annotations beside one named images, with the same
    stem; or beside their image, with its stem and _mask, _anno, .labels or similar, or another
    suffix (.geojson, .xml, .csv, .npy, .mat). Folders named train, val and test, at any depth, are
    parts; so are names that begin with them, if no folders do.

    Args:
        root: The folder.
        kind: What the task learns.

    Returns:
        The images that have labels.

    Raises:
        ConfigError: No image has labels, or two images have the same.
    """
    walked = walk(root)
    found = sort_files(root, walked.files)
    if doubled := [paths for paths in found.images.values() if len(paths) > 1]:
        names = " and ".join(printable(path.relative_to(root)) for path in doubled[0])
        raise ConfigError(
            f"{printable(root)}: {names} would have the same labels. Rename"
            " one; if one is the mask of the other, name it NAME_mask or put it into masks/"
        )
    notes = [f"left out: {printable(left.path)}: {left.reason}" for left in walked.left_out]
    rows, several = [], []
    for key, (image,) in found.images.items():
        files = found.labels.get(key, [])
        file = preferred(files, kind)
        if file is not None:
            part = next((folder for folder in key.folders if is_part(folder)), "")
            rows.append(Found(image, source_of(file, kind), printable(image), split=part))
            several += [file] if len(files) > 1 else []
    if not rows:
        raise ConfigError(_none_found(root, found))
    if several:
        notes.append(
            f"{len(several)} images have several files of labels: {printable(several[0].name)} and"
            " its like are read"
        )
    rows, by_name = _parts_by_name(rows)
    return Listing(rows, (*notes, *by_name, *_left_out(found, rows)))


def sort_files(root: Path, files: Iterable[Path]) -> Sorted:
    """Sort the files below a folder into images and labels."""
    found = Sorted()
    labels: list[tuple[Key, Path]] = []
    for file in files:
        folders = file.relative_to(root).parts[:-1]
        words = {word for folder in folders for word in _words(folder)}
        rest = tuple(name for name in map(_without_words, folders) if name)
        suffix, key = file.suffix.lower(), Key(rest, _without_image_suffix(file.stem))
        if suffix not in LABEL_SUFFIXES or _is_drawn(folders, key.stem):
            found.others.append(file)
        elif words & _OF_LABELS:
            labels.append((key, file))
        elif suffix in IMAGES and (words & _OF_IMAGES or not _END.search(key.stem)):
            found.images[key].append(file)
        else:
            labels.append((key, file))
    for key, file in labels:
        short = Key(key.folders, _END.sub("", key.stem))
        found.labels[key if key in found.images else short].append(file)
    return found


def is_of_images(folder: str) -> bool:
    """Whether the name of a folder says that it holds images, with labels in one beside it."""
    return bool(set(_words(folder)) & _OF_IMAGES)


def is_of_labels(folder: str) -> bool:
    """Whether the name of a folder says that it holds labels."""
    return bool(set(_words(folder)) & _OF_LABELS)


def is_part(folder: str) -> bool:
    """Whether the name of a folder is that of a part: train, val, testA, fold_1."""
    return _PART.fullmatch(folder.strip().casefold()) is not None


def _words(folder: str) -> list[str]:
    return re.split(r"[ _-]+", folder.casefold())


def _without_words(folder: str) -> str:
    """The name of a folder without the words for images and labels, where it tells sets apart.

    "train_masks" is of "train"; "Tissue Images" is of nothing.
    """
    words = _words(folder)
    rest = [word for word in words if word not in _OF_IMAGES | _OF_LABELS]
    if len(rest) == len(words):
        return folder
    name = " ".join(rest)
    return name if is_part(name) or any(c.isdigit() for c in name) else ""


def _is_drawn(folders: Sequence[str], stem: str) -> bool:
    """Whether a file is an overlay, or a map of classes beside one of objects."""
    drawn = any(_DRAWN.fullmatch(part) for part in (*folders, stem))
    return drawn or _TYPES.fullmatch(stem) is not None


def _without_image_suffix(stem: str) -> str:
    """The stem of "tile.png.geojson" is that of "tile.png"."""
    before, dot, last = stem.rpartition(".")
    return before if before and dot + last.lower() in IMAGES else stem


def _parts_by_name(rows: list[Found]) -> tuple[list[Found], list[str]]:
    """Parts by the beginnings of the names, where no folder says them (GlaS: testA_1.bmp)."""
    matches = [_PART_OF_NAME.fullmatch(row.image.stem) for row in rows]
    if any(row.split for row in rows) or not all(matches):
        return rows, []
    parts = [match[1] + match[2] for match in matches if match]
    if len(set(map(split_name, parts))) < 2:
        return rows, []
    named = ", ".join(dict.fromkeys(parts))
    note = f"the parts are the beginnings of the images' names: {named}"
    return [replace(row, split=part) for row, part in zip(rows, parts, strict=True)], [note]


def _left_out(found: Sorted, rows: list[Found]) -> Iterator[str]:
    used = {row.image for row in rows}
    images = [path for paths in found.images.values() for path in paths if path not in used]
    if images:
        yield f"left out: {len(images)} images without labels ({_examples(images)})"
    alone = [paths for key, paths in found.labels.items() if key not in found.images]
    if labels := [path for paths in alone for path in paths]:
        yield f"left out: {len(labels)} files of labels without an image ({_examples(labels)})"
    if found.others:
        yield (
            f"left out: {len(found.others)} files that are neither images nor labels"
            f" ({_examples(found.others)})"
        )


def _examples(paths: list[Path]) -> str:
    names = [printable(path.name) for path in paths[:_SHOWN]]
    return ", ".join([*names, *(["..."] if len(paths) > _SHOWN else [])])


def _none_found(root: Path, found: Sorted) -> str:
    """Why a folder gives no image with labels."""
    shown = printable(root)
    images = [path for paths in found.images.values() for path in paths]
    if not images:
        return f"{shown}: no images"
    if _OF_IMAGES.intersection(_words(root.name)):
        return (
            f"{shown}: {len(images)} images and no labels. Give the folder above it, which holds"
            " images/ and masks/"
        )
    labels = [path for paths in found.labels.values() for path in paths]
    beside = f" There are {len(labels)} other files ({_examples(labels)})." if labels else ""
    return (
        f"{shown}: none of {len(images)} images ({_examples(images)}) has labels that the task can"
        f" read.{beside} Put them into folders images/ and masks/ with the same names, or beside"
        " each image as NAME_mask.png, NAME.geojson or NAME.csv (points); or give a table"
    )
