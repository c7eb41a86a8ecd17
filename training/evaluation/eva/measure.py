"""The figures of one encoder on one set of eva, by the head that eva has for it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError, MissingMpp, SlideError
from pathencoder.images import open_image
from training.evaluation.encoders import Subject, subject_of
from training.evaluation.eva import head, monusac, panda, segmentation, slide_head
from training.evaluation.eva.eva_set import NONE_BESIDE, EvaImages, EvaSet
from training.evaluation.report_rows import Result
from training.evaluation.whole.features import Features
from training.evaluation.whole.subjects import Reading, Row

log = logging.getLogger("training")
_SIDE = 224


@dataclass(frozen=True)
class Case:
    """A set, an encoder, and where embeddings are kept.

    Attributes:
        s: The set.
        images: Its local copy.
        row: The encoder.
        key: Of the copy, with a hash of its content.
        features: The cache.
        runs: How many fits.
    """

    s: EvaSet
    images: EvaImages
    row: Row
    key: str
    features: Features
    runs: int


@dataclass(frozen=True)
class Measured:
    """Figures, and notes on what was left out.

    Attributes:
        results: A figure for each reported part.
        notes: For readers of the figures.
    """

    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()


def measure(case: Case) -> Measured:
    """Measure an encoder on a set.

    Args:
        case: Both.

    Raises:
        PathEncoderError: An image cannot be read, or a part is empty.
    """
    log.info("%s: %s", case.row.name, case.s.name)
    return _BY_KIND[case.s.kind](case)


def as_eva_reads(encoder: Encoder) -> Encoder:
    """The encoder with eva's input: shorter side to 224 px, then cropped; its own mean and std."""
    spec = dataclasses.replace(
        encoder.spec,
        input_size=_SIDE,
        resize="shortest",
        resize_size=_SIDE,
        interpolation="bilinear",
    )
    return Encoder(encoder.network, spec)


def _tiles(case: Case) -> Measured:
    subject, images = _subject(case), case.images
    reading = Reading(subject.encoder, (subject,), (None,))
    case.features.complete([reading], case.key, len(images.images), lambda: images.images)
    x = case.features.read(subject.fingerprint, case.key, len(images.images))
    assert x is not None
    y, which = _numbers(case.s, images.labels), np.array(images.parts)
    parts = {
        name: head.Part(np.ascontiguousarray(x[which == name]), y[which == name])
        for name in _parts(case.s)
        if (which == name).any()
    }
    fits = [
        head.fit(
            parts,
            len(case.s.classes),
            patience=case.s.patience,
            seed=seed,
            every=case.s.every,
            least=case.s.least,
        )
        for seed in range(case.runs)
    ]
    return Measured(_results(case, fits, {name: len(part.y) for name, part in parts.items()}))


def _masks(case: Case) -> Measured:
    encoder, parts = _subject(case).encoder.eval(), case.images.parts
    masked = [_masked(Path(str(image))) for image in case.images.images]
    train, val = ([m for m, p in zip(masked, parts, strict=True) if p == q] for q in _parts(case.s))
    there = segmentation.validation(encoder, val)
    fits = []
    for seed in range(case.runs):
        dice = segmentation.fit(
            encoder, train, there, len(case.s.classes), patience=case.s.patience, seed=seed
        )
        log.info("%s: run %d of %d: Dice %.3f", case.row.name, seed + 1, case.runs, dice)
        fits.append({"val": dice})
    return Measured(_results(case, fits, {"val": len(val)}, metric="eva_dice"))


def _masked(file: Path) -> segmentation.Masked:
    image = open_image(file)
    mask = monusac.mask_of(file, image.shape[:2])
    return segmentation.Masked(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(mask)
    )


def _slides(case: Case) -> Measured:
    subject, images = _subject(case), case.images
    y, which = _numbers(case.s, images.labels), np.array(images.parts)
    bags: dict[int, NDArray[np.float32]] = {}
    damaged, empty = [], []
    for number, slide in enumerate(images.images):
        file = Path(str(slide))
        try:
            rows = _of_slide(case, subject, file)
        except (SlideError, MissingMpp) as error:
            log.warning("%s is left out: %s", file.name, error)
            damaged.append(file.name)
            continue
        if len(rows):
            bags[number] = rows
        else:
            empty.append(file.name)
    parts = {}
    for name in _parts(case.s):
        chosen = [i for i in bags if which[i] == name]
        if not chosen:
            raise ConfigError(f"no slide of the part {name} of {case.s.name} could be read")
        parts[name] = slide_head.Bags([bags[i] for i in chosen], y[chosen])
    fits = [
        slide_head.fit(parts, len(case.s.classes), patience=case.s.patience, seed=seed)
        for seed in range(case.runs)
    ]
    notes = []
    if damaged:
        notes.append(f"{NONE_BESIDE}: {len(damaged)} slides cannot be read, {damaged[0]} first")
    if empty:
        notes.append(f"{len(empty)} slides without tissue are left out, as in eva")
    counts = {name: len(part.y) for name, part in parts.items()}
    return Measured(_results(case, fits, counts), tuple(notes))


def _of_slide(case: Case, subject: Subject, file: Path) -> NDArray[np.float32]:
    """Embeddings of a slide's tiles [n, D]; read once, then from the cache."""
    name, _, digest = case.key.partition("@")
    key = f"{name}/{file.stem}@{digest}"
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept: NDArray[np.float32] = np.load(
            case.features.file(subject.fingerprint, key), allow_pickle=False
        )
        return kept
    tiles = panda.tiles_of(file)
    if not tiles:
        return np.empty((0, subject.encoder.spec.dim), np.float32)
    reading = Reading(subject.encoder, (subject,), (None,))
    case.features.complete([reading], key, len(tiles), lambda: tiles)
    found = case.features.read(subject.fingerprint, key, len(tiles))
    assert found is not None
    return found


def _subject(case: Case) -> Subject:
    return subject_of(case.row.name, as_eva_reads(case.row.runs[0].encoder))


def _numbers(s: EvaSet, labels: Sequence[str]) -> NDArray[np.int64]:
    return np.array([s.classes.index(label) for label in labels])


def _parts(s: EvaSet) -> tuple[str, ...]:
    return ("train", "val", *(part for part in s.reported if part != "val"))


def _results(
    case: Case,
    fits: Sequence[dict[str, float]],
    counts: dict[str, int],
    *,
    metric: str = "eva_balanced_accuracy",
) -> tuple[Result, ...]:
    return tuple(
        Result(
            encoder=case.row.name,
            set=case.s.name,
            part=part,
            verb="eva",
            metric=metric,
            value=float(np.mean([f[part] for f in fits])),
            sd=float(np.std([f[part] for f in fits])),
            values=tuple(f[part] for f in fits),
            seeds=len(fits),
            n=counts[part],
            n_groups=counts[part],
        )
        for part in case.s.reported
        if part in counts
    )


_BY_KIND: dict[str, Callable[[Case], Measured]] = {
    "tiles": _tiles,
    "masks": _masks,
    "slides": _slides,
}
