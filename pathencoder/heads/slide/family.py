"""The family of slide heads: "abmil", "slide-mean" and "slide-max"."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import kinds, store
from pathencoder.heads.calibration import check_max_error
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.folds import require_sklearn
from pathencoder.heads.outputs import read_outputs
from pathencoder.heads.report import Report
from pathencoder.heads.request import Request
from pathencoder.heads.slide import fit as fitting
from pathencoder.heads.slide import model, survival
from pathencoder.heads.slide import record as records
from pathencoder.heads.slide.head import SlideHead
from pathencoder.heads.slide.options import ABMIL, MAX, MEAN
from pathencoder.heads.slide.record import FeatureRecord
from pathencoder.heads.slide.survival import SurvivalHead
from pathencoder.heads.slide.table import Columns
from pathencoder.pretrained import catalogue, locate

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.spec import EncoderSpec

_REPORTS = ("folds", "held_out")
_MODELS: dict[str, type[model.SlideModel]] = {
    ABMIL: model.Abmil,
    MEAN: model.SlideMean,
    MAX: model.SlideMax,
}


def fit(asked: Request) -> SlideHead | SurvivalHead:
    """Fit a slide head; arguments and errors as in `pathencoder.fit`."""
    require_sklearn()
    asked.refuse("mpp", "cache", "views", *(("output",) if asked.encoder is None else ()))
    options = kinds.options_of(asked.kind, asked.options)
    check_max_error(asked.max_error)
    if asked.on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={asked.on_error!r}: 'raise' or 'skip'")
    if callable(asked.progress):
        raise ConfigError("progress is a function: a slide head takes 'auto', True or False")
    if not isinstance(asked.data, str | os.PathLike):
        raise ConfigError(
            f"data={type(asked.data).__name__}: a slide head takes a table (CSV) with the columns"
            " slide, label and, optionally, patient and split"
        )
    how = fitting.SlideFitting(
        options=options,
        class_weight=asked.class_weight,
        calibrate=asked.calibrate,
        max_error=asked.max_error,
        skip_bad=asked.on_error == "skip",
        seed=asked.seed,
        progress=asked.progress,
    )
    if options.time is not None:
        asked.refuse("labels", "class_weight", "calibrate", "max_error")
    columns = Columns(
        label=_column("labels", asked.labels),
        group=_column("groups", asked.groups),
        split=_column("splits", asked.splits),
        time=options.time,
        event=options.event,
    )
    made_by = None if asked.encoder is None else _made_by(asked.encoder, asked.output)
    part = None if asked.evaluate is None else split_name(asked.evaluate)
    ready = fitting.prepare(asked.data, how, columns, evaluate=part, made_by=made_by)
    chosen = _MODELS[asked.kind]
    if options.time is None:
        return fitting.fit(chosen, ready, how, part)
    return survival.fit(chosen, ready, how, part)


def load(files: store.Files, device: str) -> SlideHead | SurvivalHead:
    """The head of these files; KeyError, TypeError, ValueError where they do not fit."""
    del device  # it has no encoder
    config = files.config
    settings = dict(config["settings"])
    kind, record = config["head"], FeatureRecord(**config["encoder"])
    fitted = _MODELS[kind].from_arrays(files.arrays, settings)
    if config["task"] == survival.TASK:
        reports = [survival.read_report(files.report.get(name)) for name in _REPORTS]
        return SurvivalHead(kind, fitted, record, settings, *reports)
    outputs = read_outputs(config, fitted.members[0]["out_bias"].shape[0])
    return SlideHead(
        kind=kind,
        model=fitted,
        record=record,
        classes=outputs.classes,
        settings=settings,
        temperature=outputs.temperature,
        threshold=outputs.threshold,
        report=_report(files.report.get("folds")),
        held_out=_report(files.report.get("held_out")),
        notes=tuple(files.report.get("notes", ())),
    )


def _made_by(
    encoder: Encoder | str | os.PathLike[str], output: str
) -> tuple[EncoderSpec, str, str | None]:
    """What the features are checked against: the spec, the readout, and its rule if it has its own.

    Of an encoder that is named the weights are not loaded: they may be gated, and are not needed.
    """
    if not isinstance(encoder, str | os.PathLike):
        return records.made_by(as_encoder(encoder), output)
    known = catalogue.find(encoder) if isinstance(encoder, str) else None
    return (catalogue.catalogue()[known] if known else locate.describe(encoder)), output, None


def _column(name: str, given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise ConfigError(f"{name}: the name of a column of the table of slides is needed")
    return given


def _report(content: dict[str, Any] | None) -> Report | None:
    return None if content is None else Report.from_json(content)
