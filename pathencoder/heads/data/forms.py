"""The forms of data for dense heads: which one it is, its images, their parts and groups."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from pathencoder.errors import ConfigError
from pathencoder.heads.data.classes import ClassNames
from pathencoder.heads.data.coco import is_coco, read_coco
from pathencoder.heads.data.empty import is_no_value
from pathencoder.heads.data.labelled_table import Names, read_labelled_table
from pathencoder.heads.data.listing import GEOJSON, Found, Listing, source_of
from pathencoder.heads.data.pairs import is_part, read_pairs
from pathencoder.heads.data.read import groups_in_paths, text_of
from pathencoder.heads.data.truth import Kind
from pathencoder.images import SUFFIXES
from pathencoder.walk import no_such, printable, walk

PictureLabels: TypeAlias = "str | ClassNames"
PictureGroups: TypeAlias = "str | Sequence[object] | Callable[[Path], str] | None"
PictureSplits: TypeAlias = "str | Sequence[object] | Callable[[Path], str] | None"
_COCO_LISTS = (b'"images"', b'"annotations"')
_OUTLINES = GEOJSON | {".xml"}  # of one image, which lies beside; COCO's are of many


def list_pictures(
    root: Path, kind: Kind, labels: PictureLabels, groups: PictureGroups, splits: PictureSplits
) -> Listing:
    """List images with the places of their labels.

    Args:
        root: A folder, a table, COCO's JSON, or a file of outlines.
        kind: What the task learns.
        labels: As for `read_pictures`, as are the next two.
        groups: Of the images.
        splits: Of the images.

    Returns:
        The images; the group of all is None where none is known.

    Raises:
        ConfigError: Nothing can be listed, or an argument does not go with the form.
    """
    if not os.path.exists(root):
        raise ConfigError(f"{no_such('folder or file', root)}: {printable(root)}")
    listing = _listing(root, kind, _columns(root, labels, groups, splits))
    by_column = root.is_file() and root.suffix.lower() not in _OUTLINES
    if splits is None and root.is_dir():
        _refuse_other_folders(root, listing.rows)
    if by_column:
        groups = None if isinstance(groups, str) else groups
    return arranged(listing, groups, splits, root if root.is_dir() else root.parent)


def _refuse_other_folders(root: Path, rows: Sequence[Found]) -> None:
    """Refuse images beside folders of parts: they would be fitted on unnoticed.

    Raises:
        ConfigError: The parts of some images are known by folders or names, those of others not.
    """
    without = [row for row in rows if not row.split]
    if not without or len(without) == len(rows):
        return
    named = ", ".join(sorted({row.split for row in rows if row.split}))
    places = dict.fromkeys(printable(row.image.parent) for row in without)
    raise ConfigError(
        f"{printable(root)}: {len(without)} images lie in no part, in {', '.join(places)}; others"
        f" are of {named}. Move them into folders of parts (train, val, test), or away; or say the"
        " part of each: splits= (a function of the path, or a list), or a table with a column split"
    )


def arranged(listing: Listing, groups: PictureGroups, splits: PictureSplits, root: Path) -> Listing:
    """The same images with the groups and parts that a user gave.

    Args:
        listing: The images.
        groups: A regular expression, a list or a function of the path. None: as they are.
        splits: A list or a function of the path. None: as they are.
        root: The folder below which the expression is searched in a path.

    Returns:
        The images; the group of all is None where none is known.

    Raises:
        ConfigError: A list of another length, or an expression that is none.
    """
    return replace(listing, rows=_with_groups(_with_splits(listing.rows, splits), groups, root))


def _columns(
    root: Path, labels: PictureLabels, groups: PictureGroups, splits: PictureSplits
) -> Names:
    """The names of columns among the arguments."""
    table = root.is_file() and root.suffix.lower() not in _OUTLINES
    for name, given in (("labels", labels), ("splits", splits)):
        if isinstance(given, str) and not table:
            raise ConfigError(f"{name}={given!r}: the name of a column goes with a table")
    if not table:
        return Names()
    found = [given if isinstance(given, str) else None for given in (labels, groups, splits)]
    return Names(*found)


def _listing(root: Path, kind: Kind, given: Names) -> Listing:
    """The images with the places of their labels, in any form of data."""
    regions = kind == "classes"
    if root.is_dir():
        found = [
            Found(image, labels, labels.name, split=part)
            for file, content, part in _coco_files(root)
            for image, labels in read_coco(file, content, regions=regions)
        ]
        return Listing(found) if found else read_pairs(root, kind)
    suffix = root.suffix.lower()
    if suffix == ".json":
        content = _json(root)
        if content is None:
            _refuse_damaged(root)
        if is_coco(content):
            images = read_coco(root, content, regions=regions)
            return Listing([Found(image, labels, labels.name) for image, labels in images])
    if suffix in _OUTLINES:
        stems = (root.stem, Path(root.stem).stem)
        options = [root.with_name(stem + end) for stem in stems for end in sorted(SUFFIXES)]
        image = next((path for path in options if os.path.isfile(path)), None)
        if image is None:
            raise ConfigError(
                f"{printable(root)}: no image of the same name lies beside it ({root.stem}.png for"
                " example): put it there, or give a table with the columns image and labels"
            )
        return Listing([Found(image, source_of(root, kind), printable(image))])
    return read_labelled_table(root, kind, given)


def _coco_files(root: Path) -> Iterator[tuple[Path, object, str]]:
    """COCO's files below a folder, their content, and the part that they are of."""
    files = walk(root).files
    stems = {path.stem for path in files if path.suffix.lower() in SUFFIXES}
    for file in files:
        if file.suffix.lower() != ".json" or stems & {file.stem, Path(file.stem).stem}:
            continue
        content = _json(file)
        if content is None:
            _refuse_damaged(file)
        if is_coco(content):
            folders = [name for name in file.relative_to(root).parts[:-1] if is_part(name)]
            word = re.search(r"(?<![a-z])(train|valid|val|test)(?![a-z])", file.stem.casefold())
            yield file, content, folders[0] if folders else word[1] if word else ""


def _refuse_damaged(file: Path) -> None:
    """Refuse a damaged file that may be COCO's: its images would be missing unnoticed.

    Raises:
        ConfigError: It is empty, cannot be read, or holds the names of COCO's lists.
    """
    try:
        content = file.read_bytes()
        if content and not any(name in content for name in _COCO_LISTS):
            return
        json.loads(content)
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, RecursionError) as error:  # the message states the line and the column
        reason = str(error)
    else:
        return  # "null", for example
    raise ConfigError(
        f"{printable(file)}: not whole JSON ({reason}), so that the images of this file would be"
        " missing: copy it again, or remove it"
    )


def _json(file: Path) -> object:
    """The content of a JSON file; None where it is none."""
    try:
        parsed: object = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return parsed


def _with_splits(rows: Sequence[Found], splits: PictureSplits) -> list[Found]:
    if splits is None or isinstance(splits, str):
        return list(rows)
    return [
        replace(row, split=value)
        for row, value in zip(rows, _values(rows, splits, "splits"), strict=True)
    ]


def _with_groups(rows: Sequence[Found], groups: PictureGroups, root: Path) -> list[Found]:
    given: Sequence[str | None] = [row.group for row in rows]
    if isinstance(groups, str):
        given = groups_in_paths(groups, root, [row.image for row in rows])
    elif groups is not None:
        given = _values(rows, groups, "groups")
    known = [None if g is None or is_no_value(g) else g for g in given]
    if any(g is not None for g in known):  # an empty one among others is a bad row
        known = [g or "" for g in known]
    return [replace(row, group=g) for row, g in zip(rows, known, strict=True)]


def _values(
    rows: Sequence[Found], given: Sequence[object] | Callable[[Path], str], name: str
) -> list[str]:
    """A value an image, from a list or a function of the path."""
    if callable(given):
        return [text_of(given(row.image)) for row in rows]
    if len(given) != len(rows):
        raise ConfigError(f"{name} holds {len(given)} values for {len(rows)} images: give one each")
    return [text_of(value) for value in given]
