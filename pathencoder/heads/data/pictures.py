"""Labelled images for dense heads: objects, points or classes of pixels in each image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from pathencoder.errors import ConfigError
from pathencoder.heads.data import check
from pathencoder.heads.data.classes import ClassNames, Decision, decide, labels_of, of_train
from pathencoder.heads.data.dataset import (
    TRAIN,
    TRAIN_WORDS,
    Dataset,
    is_fold,
    split_name,
    split_names,
)
from pathencoder.heads.data.forms import (
    PictureGroups,
    PictureLabels,
    PictureSplits,
    arranged,
    list_pictures,
)
from pathencoder.heads.data.listing import Found, Listing, file_of, for_kind
from pathencoder.heads.data.marks import Source
from pathencoder.heads.data.scales import scales_of, stains_of
from pathencoder.heads.data.survey import Facts
from pathencoder.heads.data.survey_set import survey_set
from pathencoder.heads.data.truth import Kind, Reading
from pathencoder.heads.dense.model import Labelled
from pathencoder.heads.dense.tasks import TASKS, Task
from pathencoder.images import Item, open_image
from pathencoder.mpp import check_mpp
from pathencoder.walk import expanded, printable

Pictures: TypeAlias = "PictureSet | str | os.PathLike[str]"


@dataclass(frozen=True)
class PictureRow:
    """One image of a labelled set, which is not open.

    Attributes:
        path: The image.
        group: Patient, slide or case; None where it is not known.
        part: "train", "val", "test" or another held-out part.
        mpp: Micrometres per pixel.
        stain: "he" or "ihc".
        labels: Where its labels are.
        reading: How the labels of the set are read.
        objects: Number of objects, outlines or points; of label maps of classes, of classes.
        fold: The given fold of a train image; "" where none is given.
        where: What messages call it.
        item: The image, where the file holds several.
    """

    path: Path
    group: str | None
    part: str
    mpp: float
    stain: str
    labels: Source
    reading: Reading = field(repr=False)
    objects: int = 0
    fold: str = ""
    where: str = ""
    item: Item | None = None

    def load(self) -> Labelled:
        """Open the image and its labels.

        Returns:
            Both; label maps have the image's height and width.

        Raises:
            ImageError: One of them can no longer be read.
        """
        image = open_image(self.path) if self.item is None else self.item.load()
        shape = (image.shape[0], image.shape[1])
        truth, classes = self.reading.truth(self.labels.read(self.mpp), shape)
        names = self.reading.names
        group = self.group or ""
        return Labelled(image, truth, self.mpp, self.stain, group, classes, names)


@dataclass(frozen=True)
class PictureSet:
    """A labelled set that was checked.

    Attributes:
        rows: Its images.
        task: The task that its labels were read for.
        classes: Names of the classes, by number: of pixels, or of points. () without classes.
        notes: What was assumed or left out, as sentences.
    """

    rows: tuple[PictureRow, ...]
    task: str
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PictureRow]:
        return iter(self.rows)

    @property
    def grouped(self) -> bool:
        """Whether the group of every image is known."""
        return all(row.group is not None for row in self.rows)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that occur, in order."""
        return tuple(dict.fromkeys(row.part for row in self.rows))

    def listing(self, kind: Kind) -> Listing:
        """The images and the places of their labels, for another reading.

        Args:
            kind: What the labels are read for.
        """
        rows = [
            Found(
                image=row.path,
                labels=for_kind(row.labels, kind),
                where=row.where or printable(row.path),
                split=row.fold or row.part,
                group=row.group,
                mpp=f"{row.mpp:.9g}",
                stain=row.stain,
                item=row.item,
            )
            for row in self.rows
        ]
        return Listing(rows, self.notes)

    def part(self, name: str) -> PictureSet:
        """The images of a part.

        Args:
            name: In any spelling: "test", "testA".

        Raises:
            ConfigError: There is no such part.
        """
        rows = tuple(row for row in self.rows if row.part == split_name(name))
        if not rows:
            advice = f". {TRAIN_WORDS}" if split_name(name) == TRAIN else ""
            raise ConfigError(
                f"the data set has no part {name!r}; it has {', '.join(self.parts)}{advice}"
            )
        return replace(self, rows=rows)


def read_pictures(
    data: Pictures,
    *,
    task: str,
    mpp: float | None = None,
    labels: PictureLabels = None,
    groups: PictureGroups = None,
    splits: PictureSplits = None,
    stain: str = "he",
    to_fit: bool = True,
) -> PictureSet:
    r"""Read and check images with labels for a dense head. Every file is opened once.

    Args:
        data: A folder with images/ and masks/ (or labels/) of the same names, or with labels beside
            each image (NAME_mask.png, NAME.geojson, NAME.xml, NAME.csv of points), optionally below
            train, val and test; a table (CSV) with a row an image (columns image, labels, group,
            split, mpp, stain) or a row a point (image, x, y, class); COCO's JSON or a folder of
            it; one file of GeoJSON beside its image; or a set that was read already.
        task: What the labels are for: a name in `pathencoder.heads.dense.tasks.TASKS`.
        mpp: Micrometres per pixel of the images whose row in a table states none. None: what each
            file states.
        labels: Names of classes: a list by number, or a mapping of stored numbers or names to
            names, None where a class is not to be learned. For a table: the name of the column.
        groups: The patient, slide or case of each image, as for `read_dataset`: the name of a
            column, a regular expression such as r"(P\d+)_", a list, or a function of the path.
        splits: The part of each image: the name of a column, a list, or a function of the path.
        stain: "he" or "ihc", of the images whose row states none.
        to_fit: Check that the train part can be fitted on: several groups, every class, an object.

    Returns:
        The set. Of "glands" and "nuclei", label maps have a number an object; a mask with one
        number for all is separated into connected parts. Of "pixels", they have a number a class.

    Raises:
        ConfigError: The set cannot be read, or has bad rows: the message lists all of them.
    """
    if task not in TASKS:
        raise ConfigError(f"task={task!r}: the tasks are {', '.join(TASKS)}")
    reading: Reading | None = None
    if isinstance(data, PictureSet):
        if data.task == task and labels is None:
            if groups is None and splits is None and mpp is None:
                return data
            reading = data.rows[0].reading
        listing = arranged(data.listing(kind_of(TASKS[task])), groups, splits, Path())
    elif isinstance(data, str | os.PathLike):
        kind = kind_of(TASKS[task])
        listing = list_pictures(expanded(data), kind, labels, groups, splits)
    else:
        raise ConfigError(f"data={type(data).__name__}: give a folder, a table or COCO's JSON")
    names = None if isinstance(labels, str) else labels
    return check_pictures(
        listing, task=task, mpp=mpp, names=reading or names, stain=stain, to_fit=to_fit
    )


def check_pictures(
    listing: Listing,
    *,
    task: str,
    mpp: float | None = None,
    names: ClassNames | Reading = None,
    stain: str = "he",
    to_fit: bool = True,
) -> PictureSet:
    """Open every image and its labels once, and check the set as a whole.

    Args:
        listing: The images and the places of their labels.
        task: As for `read_pictures`, as are the next three.
        mpp: Of images whose row states none.
        names: Of the classes; or how labels are read, where that was decided before.
        stain: Of images whose row states none.
        to_fit: As for `read_pictures`.

    Returns:
        The set.

    Raises:
        ConfigError: It has bad rows: the message lists all of them.
    """
    if not listing.rows:
        raise ConfigError("the data set holds no images")
    parts = split_names(row.split for row in listing.rows)
    named = [replace(row, split=part) for row, part in zip(listing.rows, parts, strict=True)]
    listing = replace(listing, rows=named)
    kind = kind_of(TASKS[task])
    scales = scales_of(listing.rows, None if mpp is None else check_mpp(mpp))
    stains, assumed = stains_of(listing.rows, stain)
    found = survey_set(listing.rows, kind, scales.mpp, classes=names is not None)
    listing, facts = replace(listing, rows=found.rows), found.facts
    decision = Decision(names) if isinstance(names, Reading) else decide(kind, facts, names)
    problems = [*_bad_rows(listing.rows), *_same_labels(listing.rows), *found.problems]
    problems += [*listing.problems, *scales.problems]
    problems += [*_unknown(listing.rows, facts, decision), *decision.problems]
    if to_fit and not problems:
        problems += _bad_train(listing.rows, facts, decision.reading)
    if problems:
        raise ConfigError(check.listed(problems, "nothing was fitted"))
    notes = [*listing.notes, *scales.notes, *assumed, *found.notes, *decision.notes]
    notes += _counted(facts, kind)
    if any(row.group is None for row in listing.rows):
        notes.append("no groups are known: images of one patient may be on both sides of a split")
    every = zip(listing.rows, scales.mpp, stains, facts, strict=True)
    rows = [_row(row, scale or 1.0, s, fact, decision) for row, scale, s, fact in every]
    return PictureSet(tuple(rows), task, decision.reading.names, tuple(dict.fromkeys(notes)))


def kind_of(task: Task) -> Kind:
    """What a task learns from labels."""
    if task.points:
        return "points"
    return "classes" if task.semantic else "objects"


def _row(row: Found, mpp: float, stain: str, fact: Facts, decision: Decision) -> PictureRow:
    split = row.split
    separate = decision.reading.separate and fact.values is not None
    return PictureRow(
        path=row.image,
        group=row.group,
        part=TRAIN if is_fold(split) else split,
        mpp=mpp,
        stain=stain,
        labels=row.labels,
        reading=decision.reading,
        objects=fact.parts if separate else fact.objects,
        fold=split if is_fold(split) else "",
        where=row.where,
        item=row.item,
    )


def _bad_rows(rows: Sequence[Found]) -> list[str]:
    """Missing files, files named twice, empty groups, and groups in two parts."""
    groups = tuple(row.group or "" for row in rows) if any(row.group for row in rows) else None
    return check.bad_rows(
        Dataset(
            images=tuple(row.item or row.image for row in rows),
            labels=("",) * len(rows),
            groups=groups,
            splits=tuple(row.split for row in rows),
            where=tuple(row.where for row in rows),
        )
    )


def _same_labels(rows: Sequence[Found]) -> Iterator[str]:
    """Files of labels that two images share."""
    first: dict[str, str] = {}
    for row in rows:
        file = file_of(row.labels)
        before = row.where if file is None else first.setdefault(os.path.realpath(file), row.where)
        if before != row.where:
            yield f"{row.where}: the same labels as {before} ({row.labels.name}): name its own"


def _unknown(rows: Sequence[Found], facts: Sequence[Facts], decision: Decision) -> Iterator[str]:
    """The labels whose class has no name."""
    for row, fact in zip(rows, facts, strict=True):
        values = () if fact.values is None else fact.values.tolist()
        found = decision.unknown.intersection([*values, *fact.areas, *fact.points])
        if found:
            names = ", ".join(sorted(map(repr, found))[:5])
            yield (
                f"{row.where}: labels beyond the classes ({names}): name them in labels=, None for"
                " what is not to be learned"
            )


def _bad_train(rows: Sequence[Found], facts: Sequence[Facts], reading: Reading) -> Iterator[str]:
    """What is wrong with the train part, if there is one."""
    train = [i for i, row in enumerate(rows) if row.split == TRAIN or is_fold(row.split)]
    if not train:
        return
    seen = [facts[i] for i in train]
    if reading.kind != "classes" and not labels_of(seen):
        yield f"none of the {len(seen)} images of the train part holds an object"
    if reading.kind == "classes":
        for name in of_train(reading, seen):
            yield f"the class {name!r} occurs in no image of the train part"
    groups = {rows[i].group for i in train}
    if len(groups) == 1 and None not in groups and len(train) > 1:
        yield (
            f"all images of the train part are of one group, {next(iter(groups))!r}: nothing could"
            " be said about another patient. Add groups, or leave the groups out to fit without"
        )


def _counted(facts: Sequence[Facts], kind: Kind) -> Iterator[str]:
    """How many images are empty, and what of the labels was not used or clipped."""
    empty = sum(fact.objects == 0 for fact in facts)
    if empty:
        what = "class but background" if kind == "classes" else "object"
        yield f"{empty} of {len(facts)} images hold no {what}"
    clipped = sum(fact.clipped for fact in facts)
    if clipped:
        yield f"{clipped} outlines reach beyond their image and are cut at its border"
    left = [fact.left_out for fact in facts if fact.left_out]
    if left:
        yield f"left out in the labels of {len(left)} images: {', '.join(left[0])}, and the like"
