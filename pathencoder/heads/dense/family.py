"""The family of dense heads: fit and load."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from pathencoder.encoder import Encoder
from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import kinds, store
from pathencoder.heads.data.dataset import TRAIN
from pathencoder.heads.data.forms import PictureLabels
from pathencoder.heads.data.pictures import Pictures, PictureSet, read_pictures
from pathencoder.heads.dense import evaluation, known, loading, tune, weights
from pathencoder.heads.dense import model as models
from pathencoder.heads.dense.bar import Tick, watching
from pathencoder.heads.dense.cells import CellClasses, CellOptions
from pathencoder.heads.dense.head import DenseHead
from pathencoder.heads.dense.model import DenseModel, Labelled
from pathencoder.heads.dense.options import DenseOptions
from pathencoder.heads.dense.report import DenseReport
from pathencoder.heads.dense.tasks import task_of
from pathencoder.heads.dense.train import Training
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.folds import require_sklearn
from pathencoder.heads.request import Request
from pathencoder.nuclei.instances import tools
from pathencoder.spec import EncoderSpec
from pathencoder.views import check_views

log = logging.getLogger(__name__)
_ONE_SCALE = 1.02  # factor between scales that count as one
Pairs = list[tuple[list[int], list[int]]]


def fit(asked: Request) -> DenseHead:
    """Fit a dense head; arguments and errors as in `pathencoder.fit`."""
    asked.refuse("output", "class_weight", "calibrate", "max_error", "on_error", "cache")
    options: DenseOptions = kinds.options_of(asked.kind, asked.options)
    tools()
    read = read_pictures(
        cast("Pictures", asked.data),
        task=asked.kind,
        mpp=asked.mpp,
        labels=cast("PictureLabels", asked.labels),
        groups=asked.groups,
        splits=asked.splits,
        stain=options.stain,
    )
    train = read.part(TRAIN)
    held_out = None if asked.evaluate is None else read.part(asked.evaluate)
    folds = _folds(train, options.folds)
    if held_out is not None and asked.kind == "points" and options.cells:
        known.refuse_new(train, held_out.rows)
    fitting = _Fitting.of(as_encoder(asked.encoder), asked, options, read)
    task = task_of(asked.kind, fitting.classes)
    images = loading.load(train.rows, task, options.read_mpp, stain_maps=options.stain_maps)
    with watching(options.steps * (1 + len(folds)), asked.progress) as tick:
        head = fitting.head(fitting.fit(images, "fit", tick, 0), train)
        head.cells = fitting.cells(images)
        counts = dict[int, Any]()
        for number, (fit_on, score_on) in enumerate(folds):
            before = options.steps * (number + 1)
            fold = [images[i] for i in fit_on]
            part = fitting.fit(fold, f"fold{number + 1}", tick, before)
            cells = fitting.cells(fold)
            counts |= {i: evaluation.count(head, part, images[i], cells) for i in score_on}
    notes = [*read.notes, *_left_out(read, asked.evaluate)]
    notes += tune.notes(head.sizes)
    notes += head.cells.notes if head.cells is not None else ()
    if folds:
        if asked.kind == "pixels" or head.cells is not None:
            notes += known.notes_of_folds(images, folds)
        head.report = _report_of_folds(head, train, folds, counts, notes)
    else:
        said = (*notes, _not_evaluated(read, asked.evaluate))
        head.report = DenseReport(
            head.kind, head.record.label(), "", 0, None, {}, head.settings, said
        )
    if held_out is not None:
        both = _in_both(images, held_out)
        head.held_out = evaluation.evaluated(head, held_out, str(asked.evaluate), both)
    head.checkpoints = fitting.checkpoints(len(folds))
    return head


def load(files: store.Files, device: str) -> DenseHead:
    """The head of saved files; KeyError and TypeError where they are incomplete."""
    config = files.config
    adapted = bool(config["adapted"])
    spec = EncoderSpec.from_config(config["spec"]) if adapted else None
    return DenseHead(
        kind=config["head"],
        record=EncoderRecord(**config["encoder"]),
        settings=dict(config["settings"]),
        mpp=float(config["mpp"]),
        sizes={name: float(value) for name, value in config["sizes"].items()},
        adapted=adapted,
        classes=tuple(map(str, config["classes"])),
        report=_report(files.report.get("folds")),
        held_out=_report(files.report.get("held_out")),
        _saved=weights.Saved(files.arrays, spec, device, config.get("cells")),
    )


@dataclass(frozen=True)
class _Fitting:
    """What every fit of one call shares."""

    encoder: Encoder
    kind: str
    classes: tuple[str, ...]
    how: Training
    options: DenseOptions
    spec: EncoderSpec | None  # of an encoder that is trained along
    views: int  # that are averaged in predictions

    @classmethod
    def of(
        cls, encoder: Encoder, asked: Request, options: DenseOptions, read: PictureSet
    ) -> _Fitting:
        views, how = check_views(asked.views), options.training(asked.seed)
        spec = weights.adapted_spec(encoder, asked.kind) if how.encoder_lr else None
        classes = read.classes if asked.kind == "pixels" else ()
        return cls(encoder, asked.kind, classes, how, options, spec, views)

    def fit(self, images: Sequence[Labelled], name: str, tick: Tick, before: int) -> DenseModel:
        """One fit; `before` steps of other fits were done."""
        place = self.options.place
        began = False

        def said(step: int, loss: float) -> None:
            nonlocal began
            if not began:  # where an interrupted fit goes on
                tick(before + step, None)
            began = True
            tick(before + step + 1, loss)

        fitted = models.fit(
            self.encoder,
            task_of(self.kind, self.classes),
            images,
            self.how,
            mpp=self.options.read_mpp,
            stain_maps=self.options.stain_maps,
            decoder=self.options.decoder,
            progress=said,
            checkpoint=None if place is None else _file(place, name),
        )
        tick(before + self.how.steps, None)  # of a fit that was done before
        if self.spec is not None:
            fitted.network.encoder.spec = self.spec
        return fitted

    def cells(self, images: Sequence[Labelled]) -> CellClasses | None:
        """The classes of the cells of images; None where there are fewer than two."""
        if self.kind != "points" or not self.options.cells:
            return None
        seen = {n for x in images if x.classes is not None for n in x.classes.tolist() if n >= 0}
        if len(seen) < 2:
            return None
        return CellClasses.fit(self.encoder, images, CellOptions(seed=self.how.seed))

    def head(self, fitted: DenseModel, train: PictureSet) -> DenseHead:
        """The head of a fit."""
        stain = Counter(row.stain for row in train).most_common(1)[0][0]
        settings = self.options.settings(self.how.seed)
        settings |= {"stain": stain, "read_mpp": fitted.mpp, "images": len(train)}
        settings["views"] = self.views
        settings["precision"] = self.how.on(self.encoder.device).precision
        return DenseHead(
            kind=self.kind,
            record=EncoderRecord.of(self.encoder, "dense", _scale(train)),
            settings=settings,
            mpp=fitted.mpp,
            sizes=fitted.sizes,
            adapted=self.spec is not None,
            classes=self.classes,
            _model=fitted,
        )

    def checkpoints(self, folds: int) -> tuple[Path, ...]:
        """The checkpoints of the call, which are kept until the head is saved."""
        place = self.options.place
        if place is None:
            return ()
        return tuple(_file(place, n) for n in ("fit", *(f"fold{i + 1}" for i in range(folds))))


def _file(place: Path, name: str) -> Path:
    return place / f"{name}.partial"


def _scale(train: PictureSet) -> float | None:
    """The scale of the images; None where they have several."""
    scales = [row.mpp for row in train]
    return float(np.median(scales)) if max(scales) <= _ONE_SCALE * min(scales) else None


def _folds(train: PictureSet, count: int) -> Pairs:
    """Rows to fit on and to evaluate: the folds that the data give, else new ones by group."""
    if not count:
        return []
    given = [row.fold for row in train]
    if any(given) and not all(given):
        raise ConfigError(
            f"{sum(map(bool, given))} of {len(given)} images of the train part have a fold: give"
            " every one a fold, or none"
        )
    names = given if any(given) else [row.group or row.where for row in train]
    groups = sorted(set(names))
    if len(groups) < 2:
        raise ConfigError(
            f"folds={count}: the train part has {len(groups)} group or fold: evaluate on a held-out"
            " part, or leave folds out"
        )
    require_sklearn()
    from sklearn.model_selection import GroupKFold

    parts = len(groups) if any(given) else min(count, len(groups))
    return [(a.tolist(), b.tolist()) for a, b in GroupKFold(parts).split(names, groups=names)]


def _report_of_folds(
    head: DenseHead,
    train: PictureSet,
    folds: Pairs,
    counts: dict[int, Any],
    notes: Sequence[str],
) -> DenseReport:
    given = any(row.fold for row in train)
    by = " of the data set" if given else " by group" if train.grouped else ""
    rows = sorted(counts)
    images = [train.rows[i] for i in rows]
    part = f"{len(folds)} folds{by}"
    return evaluation.report(head, [counts[i] for i in rows], images, part, notes)


def _not_evaluated(read: PictureSet, evaluate: str | None) -> str:
    """A note that says how to evaluate on folds, and on a held-out part where none was named."""
    folds = "nothing was evaluated on folds: each costs a fit (folds=4, -o folds=4)"
    if evaluate is not None:
        return folds
    parts = sorted({row.part for row in read} - {TRAIN})
    part = parts[0] if parts else "test"
    of = "a held-out part" if parts else "a held-out part of that name"
    return f"{folds}. evaluate={part!r} (--evaluate {part}) evaluates on {of}"


def _left_out(read: PictureSet, evaluate: str | None) -> Iterator[str]:
    """A note on each part that is neither fitted on nor evaluated."""
    evaluated_on = () if evaluate is None else read.part(evaluate).parts
    counts = Counter(row.part for row in read if row.part not in (TRAIN, *evaluated_on))
    for part, count in sorted(counts.items()):
        yield f"{count:,} images of the part {part!r} were not read for the fit"


def _in_both(images: Sequence[Labelled], held_out: PictureSet) -> tuple[str, ...]:
    """A note on images that were fitted on and are in the held-out part too."""
    fitted = {_content(x) for x in images}
    both = [row.where or str(row.path) for row in held_out if _content(row.load()) in fitted]
    if not both:
        return ()
    return (
        f"{len(both):,} of these images were fitted on too (the same pixels), the first: {both[0]}:"
        " scores are too good",
    )


def _content(x: Labelled) -> bytes:
    found = hashlib.sha256(repr(x.image.shape).encode())
    found.update(x.image.tobytes())
    return found.digest()


def _report(content: dict[str, Any] | None) -> DenseReport | None:
    return None if content is None else DenseReport.from_json(content)
