"""The family of classifiers: heads on the frozen embeddings of images."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import classify, kinds, store
from pathencoder.heads.calibration import check_max_error
from pathencoder.heads.classifier import Classifier
from pathencoder.heads.data.check import train_part
from pathencoder.heads.data.read import Data, Labels, read_dataset
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.folds import require_sklearn
from pathencoder.heads.outputs import read_outputs
from pathencoder.heads.parts import held_out_part
from pathencoder.heads.report import Report
from pathencoder.heads.request import Request
from pathencoder.mpp import check_mpp
from pathencoder.views import check_views


def fit(asked: Request) -> Classifier:
    """Fit a classifier; arguments and errors as in `pathencoder.fit`."""
    require_sklearn()
    options = kinds.options_of(asked.kind, asked.options)
    check_max_error(asked.max_error)
    scale = None if asked.mpp is None else check_mpp(asked.mpp)
    if asked.on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={asked.on_error!r}: 'raise' or 'skip'")
    if asked.output == "dense":
        raise ConfigError("output='dense': a classifier takes one vector per image")
    views = check_views(asked.views)
    if callable(asked.progress):
        raise ConfigError("progress is a function: a classifier takes 'auto', True or False")
    read = read_dataset(
        cast("Data", asked.data),
        labels=cast("Labels", asked.labels),
        groups=asked.groups,
        splits=asked.splits,
    )
    train = train_part(read)
    weights = classify.class_weights(asked.class_weight, train.classes)
    held_out = held_out_part(read, asked.evaluate, train)
    network = as_encoder(asked.encoder)
    fitting = classify.Fitting(
        kind=asked.kind,
        options=options,
        class_weights=weights,
        calibrate=asked.calibrate,
        max_error=asked.max_error,
        skip_bad=asked.on_error == "skip",
        seed=asked.seed,
        cache=asked.cache,
        progress=asked.progress,
    )
    record = EncoderRecord.of(network, asked.output, scale, views)
    return classify.fit(
        network, record, train, held_out, fitting, left=classify.left_out(read, asked.evaluate)
    )


def load(files: store.Files, device: str) -> Classifier:
    """The classifier of a head's files; KeyError, TypeError, ValueError where they do not fit."""
    config = files.config
    model = kinds.kind(config["head"]).from_arrays(files.arrays, config["settings"])
    record = EncoderRecord(**config["encoder"])
    outputs = read_outputs(config, model.logits(np.zeros((1, record.dim))).shape[1])
    return Classifier(
        kind=config["head"],
        classes=outputs.classes,
        model=model,
        record=record,
        settings=dict(config["settings"]),
        temperature=outputs.temperature,
        threshold=outputs.threshold,
        report=_report(files.report.get("folds")),
        held_out=_report(files.report.get("held_out")),
        notes=tuple(files.report.get("notes", ())),
        _device=device,
    )


def _report(content: dict[str, Any] | None) -> Report | None:
    return None if content is None else Report.from_json(content)
