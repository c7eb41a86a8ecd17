"""Check a whole data set before anything is encoded: all bad rows in one list."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pathencoder.errors import ConfigError
from pathencoder.heads.data.dataset import TRAIN, TRAIN_WORDS, Dataset, whole_number
from pathencoder.heads.data.empty import is_empty, is_no_value
from pathencoder.walk import no_such, printable

_SHOWN = 50
_LINE = ", line "  # of a table, in the names of its rows
_RELATIVE = " (paths in a table are relative to its folder)"  # said once


def check(data: Dataset) -> Dataset:
    """Check a data set.

    Args:
        data: Labelled images.

    Returns:
        The same.

    Raises:
        ConfigError: A file is missing or named twice; a label, group or part is empty or NaN;
            labels or groups differ in case or spaces only, or are one number (7, 07, 7.0); a group
            is in two parts. The message lists every bad row.
    """
    _check_lengths(data)
    if problems := [*_bad_files(data), *bad_labels(data)]:
        raise ConfigError(listed(problems, "nothing was encoded"))
    if not len(data):
        raise ConfigError("the data set holds no images")
    return data


def bad_labels(data: Dataset) -> list[str]:
    """What is wrong with the labels, groups and splits of a data set, a sentence each."""
    return [
        *_empty_labels(data),
        *similar(data.labels, "labels"),
        *bad_parts(data),
        *_of_groups(data),
    ]


def bad_rows(data: Dataset) -> list[str]:
    """What is wrong with the files, groups and parts of a data set, as sentences."""
    _check_lengths(data)
    return [*_bad_files(data), *bad_parts(data), *_of_groups(data)]


def bad_parts(data: Dataset) -> list[str]:
    """The rows without a part among others that have one: they would be fitted on unnoticed."""
    splits = data.splits or ()
    if all(splits):
        return []
    named = ", ".join(sorted({split for split in splits if split}))
    return [
        f"{data.name(row)}: no part is named, others are of {named}: name one for every row, or for"
        " none"
        for row, split in enumerate(splits)
        if not split
    ]


def similar(names: Iterable[str], what: str) -> Iterator[str]:
    """Say so where names differ in case, surrounding spaces or Unicode composition only.

    They are one class or one patient, written in two ways; so are "7", "07" and "7.0", which tables
    that went through spreadsheets or pandas mix.

    Args:
        names: In any order, also several times.
        what: "labels" or "groups", for example.

    Yields:
        A sentence for each set of names that are one.
    """
    for same in spellings(names):
        listed = " and ".join(map(ascii, same))
        one = "differ in case, spaces or Unicode composition only"
        if all(whole_number(name) for name in same):
            one = "are one number"
        yield f"{what} {listed} {one}: use one spelling"


def spellings(names: Iterable[str]) -> list[list[str]]:
    """The names that occur in several spellings, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        found[_folded(name)].append(name)
    return [same for same in found.values() if len(same) > 1]


def listed(problems: Sequence[str], so: str) -> str:
    """All problems of a data set in one message.

    Args:
        problems: Each as a sentence.
        so: What was not done because of them.
    """
    shown = [f"  {printable(problem)}" for problem in problems[:_SHOWN]]
    more = len(problems) - _SHOWN
    many = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    return "\n".join(
        [
            f"the data set has {many}; {so}:",
            *shown,
            *([f"  and {more:,} more"] if more > 0 else []),
        ]
    )


def train_part(data: Dataset) -> Dataset:
    """The part that a classifier is fitted on.

    Raises:
        ConfigError: It is empty, or has one class or one group alone.
    """
    train = data.take(data.rows_of(TRAIN))
    if not len(train):
        parts = ", ".join(sorted({data.part(row) for row in range(len(data))}))
        raise ConfigError(f"the data set has no train part to fit on, only: {parts}. {TRAIN_WORDS}")
    if len(train.classes) < 2:
        raise ConfigError(
            f"all {len(train)} {train.unit} of the train part are of one class,"
            f" {train.classes[0]!r}: a classifier needs at least two"
        )
    if train.groups is not None and len(set(train.groups)) < 2:
        raise ConfigError(
            f"all {train.unit} of the train part are of one group, {train.groups[0]!r}: nothing"
            " could be said about another patient. Add groups, or leave the groups out to fit"
            " without"
        )
    return train


def kept_classes(data: Dataset, classes: Sequence[str]) -> None:
    """Refuse a train part that lost a class with the rows that were left out.

    A head would never name that class; weights that were given by class would have no class.

    Args:
        data: The train part without the rows that were left out.
        classes: Those of the whole train part.

    Raises:
        ConfigError: A class is gone.
    """
    if gone := [name for name in classes if name not in data.classes]:
        raise ConfigError(
            f"no {data.unit} of {', '.join(gone)} are left in the train part: none of them can be"
            f" read. Repair some of these {data.unit}, or take their classes out of the data set"
        )


def known_classes(data: Dataset, classes: Sequence[str]) -> None:
    """Refuse a held-out part with classes that a head on the train part would not know.

    Args:
        data: The held-out part.
        classes: Those of the train part.

    Raises:
        ConfigError: It has others.
    """
    if unknown := sorted(set(data.classes) - set(classes)):
        raise ConfigError(
            f"the train part has the classes {', '.join(classes)}, not {', '.join(unknown)}, which"
            f" the part {data.part(0)!r} has: evaluate on classes of the train part, or add"
            f" {data.unit} of these to it"
        )


def _check_lengths(data: Dataset) -> None:
    for name in ("labels", "groups", "splits"):
        values = getattr(data, name)
        if values is not None and len(values) != len(data.images):
            raise ConfigError(
                f"{name} holds {len(values)} values for {len(data.images)} images: give one each"
            )


def _bad_files(data: Dataset) -> Iterator[str]:
    first: dict[str, int] = {}
    said = False
    for row, image in enumerate(data.images):
        if not isinstance(image, str | os.PathLike):
            continue
        path = Path(image)
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            what = "a folder, not an image" if os.path.isdir(path) else no_such("file", path)
            relative = "" if said or _LINE not in data.name(row) else _RELATIVE
            said = said or bool(relative)
            yield f"{data.name(row)}: {what}{_shown(data, row, path)}{relative}"
            continue
        before = first.setdefault(os.path.realpath(path), row)
        if before != row:
            yield f"{data.name(row)}: the same image as {data.name(before)}: keep one"


def _shown(data: Dataset, row: int, path: Path) -> str:
    """The path, where the row is not named by it already."""
    shown = printable(path)
    return "" if data.name(row) == shown else f" {shown}"


def _empty_labels(data: Dataset) -> Iterator[str]:
    for row, label in enumerate(data.labels):
        if is_empty(label):
            shown = label.strip() or "empty"
            if shown.casefold() == "nan":
                shown = "NaN"
            yield f"{data.name(row)}: the label is {shown}: name the class"


def _of_groups(data: Dataset) -> list[str]:
    """What is wrong with the groups, a sentence each."""
    # images of one patient would be on both sides of a split
    same = similar(data.groups or (), "groups")
    return [*_bad_groups(data), *same, *_shared_groups(data)]


def _folded(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return whole_number(folded) or folded


def _bad_groups(data: Dataset) -> Iterator[str]:
    for row, group in enumerate(data.groups or ()):
        if is_no_value(group):
            yield f"{data.name(row)}: the group is empty: name one for every row, or for none"


def _shared_groups(data: Dataset) -> Iterator[str]:
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for row, group in enumerate(data.groups or ()):
        split = TRAIN if data.splits is None else data.splits[row]
        parts[_folded(group)].setdefault(split, row)
    for found in parts.values():
        if len(found) > 1:
            row = next(iter(found.values()))
            group = (data.groups or ())[row]
            names = " and ".join(f"{part} ({data.name(row)})" for part, row in found.items())
            yield f"group {group!r} is in {names}: give each group one split"
