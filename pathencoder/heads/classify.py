"""Fit a classifier: embed, choose, evaluate on folds by group, calibrate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.heads import judge, kinds
from pathencoder.heads.adapt import seen
from pathencoder.heads.classifier import Classifier, class_numbers
from pathencoder.heads.data.dataset import TRAIN, Dataset, split_name
from pathencoder.heads.embed import Embedded
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.parts import Part, embed_parts
from pathencoder.heads.rows import Floats, Rows
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


@dataclass(frozen=True)
class Fitting:
    """How a head is fitted; see `pathencoder.fit`."""

    kind: str
    options: Any
    class_weights: Floats | None
    calibrate: bool
    max_error: float | None
    skip_bad: bool
    seed: int
    cache: bool
    progress: Progress


def fit(
    encoder: Encoder,
    record: EncoderRecord,
    train: Dataset,
    held_out: Dataset | None,
    how: Fitting,
    *,
    left: Sequence[str] = (),
) -> Classifier:
    """Fit a classifier on a checked train part.

    Args:
        encoder: The encoder.
        record: How it is read.
        train: The images to fit on.
        held_out: The images to evaluate on afterwards, which are read before anything is fitted.
            None: no other than those of the folds.
        how: The settings.
        left: Notes on parts that are not read.

    Returns:
        The head.

    Raises:
        ConfigError: Folds are needed, and not possible.
        ImageError: Images cannot be read.
    """
    first, second = embed_parts(
        encoder,
        record,
        train,
        held_out,
        cache=how.cache,
        skip_bad=how.skip_bad,
        progress=how.progress,
    )
    train, found = first.data, first.found
    notes = [*train.notes, *left, *first.notes, *copies(train, found.contents)]
    notes += seen.notes(encoder, found.contents)
    if how.kind == "prototypes" and how.class_weights is not None:
        notes.append("class weights count in the temperature alone: prototypes have none")
    rows = rows_of(train, found, how.class_weights, how.seed)
    model = kinds.kind(how.kind)
    folds = judge.folds_of(train, rows)
    settings = judge.chosen(model, rows, train, how.options)
    fitted = model.fit(rows, settings)
    head = Classifier(how.kind, train.classes, fitted, record, settings, _encoder=encoder)
    judge.judge(head, model, rows, train, folds, how, notes)
    if second is not None:
        both = (*second.notes, *_in_both(found.contents, second))
        part = second.data.part(0)
        head.held_out = head.evaluate_rows(second.data, second.found, part, both)
    return head


def class_weights(given: object, classes: Sequence[str]) -> Floats | None:
    """Weights by class number [C]; None for classes that weigh the same.

    Raises:
        ConfigError: A class has no weight, or one that is not positive.
    """
    if given == "balanced":
        return None
    if given is None:
        return np.ones(len(classes))
    if not isinstance(given, Mapping) or {str(name) for name in given} != set(classes):
        raise ConfigError(
            f"class_weight={given!r}: 'balanced', None, or a weight for each of"
            f" {', '.join(classes)}"
        )
    by_name = {str(name): weight for name, weight in given.items()}
    try:
        weights = np.array([by_name[name] for name in classes], np.float64)
    except (TypeError, ValueError):
        weights = np.full(len(classes), np.nan)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ConfigError(f"class_weight={given!r}: weights are numbers above 0")
    return weights


def left_out(data: Dataset, evaluate: str | None) -> list[str]:
    """A note on each part that is neither fitted on nor evaluated."""
    named = (TRAIN,) if evaluate is None else (TRAIN, split_name(evaluate))
    parts: dict[str, int] = defaultdict(int)
    for row in range(len(data)):
        parts[data.part(row)] += 1
    return [
        f"{count:,} {data.unit} of the part {part!r} were not read (evaluate={part!r} evaluates on"
        " them)"
        for part, count in sorted(parts.items())
        if part not in named
    ]


def copies(train: Dataset, contents: Sequence[bytes]) -> list[str]:
    """Notes on images of the same content with other labels, in other groups, or without groups."""
    first: dict[bytes, int] = {}
    labels, groups, same = list[int](), list[int](), list[int]()
    for row, content in enumerate(contents):
        before = first.setdefault(content, row)
        if train.labels[row] != train.labels[before]:
            labels.append(row)
        elif train.groups is not None and train.groups[row] != train.groups[before]:
            groups.append(row)
        elif train.groups is None and row != before:
            same.append(row)
    return [
        f"{len(rows):,} images have the content of another one {what}, the first:"
        f" {train.name(rows[0])} and {train.name(first[contents[rows[0]]])}"
        for rows, what in (
            (labels, "with another label"),
            (groups, "of another group"),
            (same, "(copies stay together in folds, unless the data set gives them)"),
        )
        if rows
    ]


def _in_both(fitted_on: Sequence[bytes], held_out: Part) -> tuple[str, ...]:
    """A note on images that were fitted on and are in the held-out part too."""
    known = set(fitted_on)
    both = [row for row, content in enumerate(held_out.found.contents) if content in known]
    if not both:
        return ()
    return (
        f"{len(both):,} of these images were fitted on too (the same content), the first:"
        f" {held_out.data.name(both[0])}: figures are too good",
    )


def rows_of(train: Dataset, found: Embedded, class_weights: Floats | None, seed: int) -> Rows:
    """The embeddings of a data set with class and group numbers.

    Raises:
        ConfigError: Embeddings are not finite.
    """
    if not np.isfinite(found.rows).all():
        bad = int((~np.isfinite(found.rows)).any(1).sum())
        raise ConfigError(
            f"{bad} of {len(found.rows)} embeddings hold NaN or infinity: the encoder is broken, or"
            " overflows in this precision"
        )
    # copies of an image are one group where none are known
    groups = train.groups or [
        content.hex() or str(row) for row, content in enumerate(found.contents)
    ]
    classes = train.classes
    return Rows(
        x=found.rows.astype(np.float64),
        y=class_numbers(train.labels, classes),
        groups=np.unique(np.asarray(groups), return_inverse=True)[1],
        classes=len(classes),
        class_weights=class_weights,
        seed=seed,
    )
