"""Fit a slide head: read the features of all slides, choose, evaluate on folds by patient."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.std import tqdm

from pathencoder.errors import ConfigError
from pathencoder.heads import classify, judge
from pathencoder.heads.classifier import class_numbers, part_of
from pathencoder.heads.data.check import bad_parts, kept_classes, known_classes, listed, train_part
from pathencoder.heads.data.dataset import TRAIN, Dataset
from pathencoder.heads.request import ClassWeight
from pathencoder.heads.slide.bags import Bags, Read, Tiles, as_objects, read_bags
from pathencoder.heads.slide.head import SlideHead
from pathencoder.heads.slide.model import SlideModel
from pathencoder.heads.slide.options import SlideOptions
from pathencoder.heads.slide.table import EVENT, Columns, read_slides
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.spec import EncoderSpec


@dataclass(frozen=True)
class SlideFitting:
    """How a slide head is fitted; see `pathencoder.fit`."""

    options: SlideOptions
    class_weight: ClassWeight
    calibrate: bool
    max_error: float | None
    skip_bad: bool
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Prepared:
    """Slides that were read and checked, ready for fitting.

    Attributes:
        read: The slides of all parts that were read.
        train: Those of the train part, a row a bag.
        bags: Their features.
        folds: For the report; None where none are possible.
        notes: For the report.
    """

    read: Read
    train: Dataset
    bags: Bags
    folds: judge.Named | None
    notes: list[str]


def prepare(
    table: str | os.PathLike[str],
    how: SlideFitting,
    columns: Columns,
    *,
    evaluate: str | None = None,
    made_by: tuple[EncoderSpec, str, str | None] | None = None,
) -> Prepared:
    """Read and check a table of slides and their feature files.

    Args:
        table: A CSV; see `read_slides`.
        how: The settings.
        columns: Of the table.
        evaluate: The held-out part to evaluate on once the head is fitted.
        made_by: The encoder and the readout that the features must be of, as `check_spec` takes
            them. None: the feature files state them.

    Raises:
        ConfigError: The table or feature files are bad, which the message lists; or a setting does
            not fit.
        HeadMismatch: The features are not of the given encoder.
    """
    hidden = _hidden(how.progress)
    slides = read_slides(table, how.options.features, columns)
    survival = slides.times is not None
    # what the table alone tells is said before files are read
    if problems := bad_parts(slides.data):
        raise ConfigError(listed(problems, "nothing was read"))
    whole = _train_part(slides.data, survival=survival)
    _check_held_out(slides.data, whole, evaluate, survival=survival)
    parts = {TRAIN} if evaluate is None else {TRAIN, evaluate}
    bag, skip = how.options.bag, how.skip_bad
    read = read_bags(slides, parts, bag=bag, skip_bad=skip, seed=how.seed, hidden=hidden)
    if made_by is not None:
        read.record.check_spec(*made_by)
    # again, without the slides that were left out
    if not survival:
        kept_classes(read.data.take(read.data.rows_of(TRAIN)), whole.classes)
    train = _train_part(read.data, survival=survival)
    _check_held_out(read.data, train, evaluate, survival=survival)
    bags = _bags(train, read, how)
    notes = [*read.data.notes, *classify.left_out(slides.data, evaluate)]
    return Prepared(read, train, bags, judge.folds_of(train, bags), notes)


@contextlib.contextmanager
def counted(ready: Prepared, how: SlideFitting) -> Iterator[Bags]:
    """The bags of the train part, while a bar counts the networks that are trained on them."""
    rounds = 1 + (0 if ready.folds is None else len(ready.folds.pairs))
    total = rounds * (how.options.seeds + (how.options.epochs is None))
    hidden = _hidden(how.progress)
    with tqdm(total=total, desc="training", unit="network", disable=hidden) as bar:
        yield dataclasses.replace(ready.bags, trained=bar.update)


def fit(
    model: type[SlideModel], ready: Prepared, how: SlideFitting, evaluate: str | None
) -> SlideHead:
    """Fit a classifier of slides.

    Args:
        model: The kind of head.
        ready: The slides.
        how: The settings.
        evaluate: The held-out part to evaluate on once the head is fitted.

    Returns:
        The head, with its report.

    Raises:
        ConfigError: Folds are needed, and not possible.
    """
    train = ready.train
    with counted(ready, how) as bags:
        settings = judge.chosen(model, bags, train, how.options)
        fitted = model.fit(bags, settings)
        head = SlideHead(model.kind, fitted, ready.read.record, train.classes, settings)
        judge.judge(head, model, bags, train, ready.folds, how, ready.notes)
    if evaluate is not None:
        part = part_of(ready.read.data, evaluate)
        x = of_part(ready.read, evaluate)
        head.held_out = head.evaluate_bags(part, x, evaluate, ready.read.data.notes)
    return head


def _train_part(data: Dataset, *, survival: bool) -> Dataset:
    """The train part; of survival, every slide may have an event, and one has to.

    Raises:
        ConfigError: It is empty, or nothing can be learned from it.
    """
    train = data.take(data.rows_of(TRAIN))
    if survival and len(train) and EVENT not in train.classes:
        raise ConfigError(
            f"none of the {len(train)} {train.unit} of the train part has an event: risks are"
            f" learned from events. Add {train.unit} with one, or check the column of events (1:"
            " event, 0: none until the last observation)"
        )
    return train if survival and train.classes == (EVENT,) else train_part(data)


def _check_held_out(data: Dataset, train: Dataset, part: str | None, *, survival: bool) -> None:
    """Refuse a held-out part that is missing, or has classes that the train part lacks.

    Events and last observations are no classes: of survival, any will do.
    """
    if part is None:
        return
    held_out = part_of(data, part)
    if not survival:
        known_classes(held_out, train.classes)


def _bags(train: Dataset, read: Read, how: SlideFitting) -> Bags:
    groups = train.groups or [str(row) for row in range(len(train))]
    weights, times = None, None
    if read.times is None:
        weights = classify.class_weights(how.class_weight, train.classes)
        y = class_numbers(train.labels, train.classes)
    else:
        times = read.times[read.data.rows_of(TRAIN)]
        y = np.array([int(label == EVENT) for label in train.labels])
    return Bags(
        x=as_objects(of_part(read, TRAIN)),
        y=y,
        groups=np.unique(np.asarray(groups), return_inverse=True)[1],
        classes=len(train.classes),
        class_weights=weights,
        seed=how.seed,
        device=how.options.device,
        times=times,
    )


def of_part(read: Read, part: str) -> list[Tiles]:
    """The features of the bags of a part."""
    return [read.x[row] for row in read.data.rows_of(part)]


def _hidden(progress: Progress) -> bool | None:
    """What tqdm takes: None shows a bar on a terminal alone."""
    if not isinstance(progress, bool) and progress != "auto":
        raise ConfigError(f"progress={progress!r}: 'auto', True or False")
    return None if progress == "auto" else not progress
