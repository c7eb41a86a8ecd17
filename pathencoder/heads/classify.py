"""Fit a classifier: embed, choose, evaluate on folds by group, calibrate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathencoder.errors import ConfigError, ImageError
from pathencoder.heads import judge, kinds
from pathencoder.heads.adapt import seen
from pathencoder.heads.cache import FeatureCache
from pathencoder.heads.classifier import Classifier
from pathencoder.heads.data.check import train_part
from pathencoder.heads.data.dataset import TRAIN, Dataset
from pathencoder.heads.embed import Embedded, embed
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.rows import Floats, Rows
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

_SHOWN = 20


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
        held_out: The images to evaluate on afterwards. None: no other than those of the folds.
        how: The settings.
        left: Notes on parts that are not read.

    Returns:
        The head.

    Raises:
        ConfigError: Folds are needed, and not possible.
        ImageError: Images cannot be read.
    """
    found = embed(
        encoder,
        record,
        train.images,
        [train.name(row) for row in range(len(train))],
        cache=FeatureCache.default() if how.cache else None,
        progress=how.progress,
    )
    train, found, notes = readable(train, found, skip=how.skip_bad)
    notes = [*train.notes, *left, *notes, *copies(train, found.contents)]
    notes += seen.notes(encoder, found.contents)
    rows = rows_of(train, found, how.class_weights, how.seed)
    model = kinds.kind(how.kind)
    folds = judge.folds_of(train, rows)
    settings = judge.chosen(model, rows, train, how.options)
    fitted = model.fit(rows, settings)
    head = Classifier(how.kind, train.classes, fitted, record, settings, _encoder=encoder)
    judge.judge(head, model, rows, train, folds, how, notes)
    if held_out is not None:
        part = held_out.part(0)
        both = _in_both(train, found.contents, held_out)
        head.held_out = head.evaluate_dataset(
            held_out, part, cache=how.cache, progress=how.progress, notes=both
        )
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
    weights = np.array([by_name[name] for name in classes], np.float64)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ConfigError(f"class_weight={given!r}: weights are numbers above 0")
    return weights


def left_out(data: Dataset, evaluate: str | None) -> list[str]:
    """A note on each part that is neither fitted on nor evaluated."""
    parts: dict[str, int] = defaultdict(int)
    for row in range(len(data)):
        parts[data.part(row)] += 1
    return [
        f"{count:,} {data.unit} of the part {part!r} were not read (evaluate={part!r} evaluates on"
        " them)"
        for part, count in sorted(parts.items())
        if part not in (TRAIN, evaluate)
    ]


def readable(train: Dataset, found: Embedded, *, skip: bool) -> tuple[Dataset, Embedded, list[str]]:
    """Data set and rows without the images that cannot be read, and a note on these.

    Raises:
        ImageError: An image cannot be read and `skip` is false, or none can be read.
    """
    if not found.errors:
        return train, found, []
    lines = [f"  {error}" for _, error in sorted(found.errors.items())]
    more = [f"  and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
    listed = "\n".join([*lines[:_SHOWN], *more])
    if not skip:
        raise ImageError(
            f"{len(found.errors):,} of {len(train):,} images cannot be read:\n{listed}\nRemove them"
            " from the data set, or leave them out with on_error='skip' (--skip-bad)"
        )
    good = [row for row in range(len(train)) if row not in found.errors]
    contents = [found.contents[row] for row in good]
    kept = train_part(train.take(good)) if good else train.take(good)
    if not good:
        raise ImageError(f"none of the images can be read:\n{listed}")
    note = f"{len(found.errors):,} images that cannot be read were left out:\n{listed}"
    return kept, Embedded(found.rows[good], contents, {}, found.new), [note]


def copies(train: Dataset, contents: Sequence[bytes]) -> list[str]:
    """Notes on images of the same content with other labels, or in other groups."""
    first: dict[bytes, int] = {}
    labels, groups = list[int](), list[int]()
    for row, content in enumerate(contents):
        before = first.setdefault(content, row)
        if train.labels[row] != train.labels[before]:
            labels.append(row)
        elif train.groups is not None and train.groups[row] != train.groups[before]:
            groups.append(row)
    return [
        f"{len(rows):,} images have the content of another one {what}, the first:"
        f" {train.name(rows[0])} and {train.name(first[contents[rows[0]]])}"
        for rows, what in ((labels, "with another label"), (groups, "of another group"))
        if rows
    ]


def _in_both(train: Dataset, contents: Sequence[bytes], held_out: Dataset) -> tuple[str, ...]:
    """A note on images that were fitted on and are in the held-out part too."""
    from pathencoder.heads.embed import contents_of

    known = set(contents)
    both = [row for row, c in enumerate(contents_of(held_out.images)) if c in known]
    if not both:
        return ()
    return (
        f"{len(both):,} of these images were fitted on too (the same content), the first:"
        f" {held_out.name(both[0])}: figures are too good",
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
    groups = train.groups or [str(row) for row in range(len(train))]
    return Rows(
        x=found.rows.astype(np.float64),
        y=np.array([train.classes.index(label) for label in train.labels]),
        groups=np.unique(np.asarray(groups), return_inverse=True)[1],
        classes=len(train.classes),
        class_weights=class_weights,
        seed=seed,
    )
