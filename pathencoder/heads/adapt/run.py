"""`pathencoder.adapt`: train an encoder on labelled images, and compare it with the frozen one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import classify, judge
from pathencoder.heads.adapt import compare, learner, lora, save, seen
from pathencoder.heads.adapt.adapted import Adapted
from pathencoder.heads.adapt.fit import Fitted, Job, fit, shifted
from pathencoder.heads.adapt.options import Options
from pathencoder.heads.adapt.report import AdaptationReport
from pathencoder.heads.adapt.tiles import Tiles
from pathencoder.heads.adapt.train import Steps, best_of
from pathencoder.heads.classifier import Classifier
from pathencoder.heads.data.check import train_part
from pathencoder.heads.data.dataset import split_name
from pathencoder.heads.data.read import Data, Groups, Labels, read_dataset
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.folds import require_sklearn
from pathencoder.heads.parts import Part, embed_parts, held_out_part
from pathencoder.mpp import check_mpp
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.heads.rows import Model


def adapt(
    encoder: Encoder | str | os.PathLike[str] | None,
    data: Data,
    how: Literal["lora", "last", "all"] = "lora",
    *,
    labels: Labels = None,
    groups: Groups = None,
    splits: Labels = None,
    mpp: float | None = None,
    evaluate: str | None = None,
    folds: int = 0,
    class_weight: Mapping[str, float] | Literal["balanced"] | None = "balanced",
    epochs: int = Options.epochs,
    patience: int = Options.patience,
    batch: int = Options.batch,
    rate: float | None = None,
    head_rate: float = Options.head_rate,
    layer_decay: float = Options.layer_decay,
    weight_decay: float = Options.weight_decay,
    stages: int | None = None,
    rank: int = Options.rank,
    on_error: Literal["raise", "skip"] = "raise",
    seed: int = 0,
    cache: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | Steps = "auto",
) -> Adapted:
    """Adapt an encoder to labelled images, and compare it with the frozen one.

        adapted = pathencoder.adapt(None, "tiles.csv", "lora", evaluate="test")
        print(adapted.report.text())
        adapted.save("my_encoder")
        encoder = pathencoder.load_encoder("my_encoder")

    A linear layer on the embedding is trained along; it begins as the logistic regression on the
    frozen embeddings. At the end a linear head is fitted on the adapted embeddings of the whole
    train part. A fifth of the groups (patients) of the train part ends the training: the
    weights of the epoch with the least loss on them, after temperature scaling, are kept. The
    images vary by flips, quarter turns, scale and stain. Statistics of batch normalisation do not
    move. The given encoder does not change.

    Args:
        encoder: An `Encoder`, or a name, folder or repository for `load_encoder`. None: the default
            encoder.
        data: As for `pathencoder.fit`, as are the next four.
        how: "lora" trains adapters of low rank beside the layers (needs the extra `lora`), "last"
            the last stages, "all" the whole network.
        labels: The classes.
        groups: Patients, slides or cases.
        splits: The parts.
        mpp: Micrometres per pixel of the images. None: each image is resized whole.
        evaluate: The held-out part to compare on, for example "test".
        folds: Compare on this many folds by group too, each with an adaptation of its own; 0: none.
            Folds that the data set gives are used instead.
        class_weight: As for `pathencoder.fit`.
        epochs: Passes over the images, at most.
        patience: Epochs without a lower loss after which the training ends.
        batch: Images in a step.
        rate: Highest learning rate of the encoder. None: 1e-3 for "lora", 3e-4 for the others.
        head_rate: Highest learning rate of the layer.
        layer_decay: Factor of the rate from a stage to the one before; not for "lora".
        weight_decay: Of the encoder's weights.
        stages: For "last": how many stages are trained. None: a third of those that the embedding
            depends on.
        rank: For "lora": of the adapters.
        on_error: "raise" stops where images cannot be read, and lists them all; "skip" leaves them
            out and notes it.
        seed: Of folds and random numbers.
        cache: Keep the frozen embeddings on disk.
        checkpoint: A folder for the state of the training, written about every minute: the same
            call goes on exactly where one was stopped. `Adapted.save` deletes it.
        progress: As for `Encoder.encode`; or a function of the steps that are done, and of the
            steps at most.

    Returns:
        The adapted encoder, with its head and the comparison.

    Raises:
        ConfigError: The data set has bad rows, which the message lists; a setting does not fit; the
            loss is not a number; or the weights are not float32.
        ImageError: Images cannot be read.
        MissingExtra: scikit-learn is not installed, or peft for "lora".
        PathEncoderError: The encoder cannot be loaded; see `load_encoder`.
    """
    require_sklearn()
    options = Options(
        how=how,
        epochs=epochs,
        patience=patience,
        batch=batch,
        rate=rate,
        head_rate=head_rate,
        layer_decay=layer_decay,
        weight_decay=weight_decay,
        stages=stages,
        rank=rank,
        folds=folds,
        seed=seed,
    )
    if how == "lora":
        lora.require_peft()
    scale = None if mpp is None else check_mpp(mpp)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: 'raise' or 'skip'")
    read = read_dataset(data, labels=labels, groups=groups, splits=splits)
    train = train_part(read)
    weights = classify.class_weights(class_weight, train.classes)
    evaluate = None if evaluate is None else split_name(evaluate)
    held_out = held_out_part(read, evaluate, train)
    network = as_encoder(encoder)
    learner.refuse(network)
    with _shown(progress) as (steps, bar):
        record = EncoderRecord.of(network, "embedding", scale)
        skip = on_error == "skip"
        first, second = embed_parts(
            network, record, train, held_out, cache=cache, skip_bad=skip, progress=bar
        )
        train, found = first.data, first.found
        job = Job(
            encoder=network,
            record=record,
            train=train,
            rows=classify.rows_of(train, found, weights, seed),
            contents=found.contents,
            tiles=Tiles(network.transform, train.images, train.where, scale),
            how=options,
            checkpoint=None if checkpoint is None else Path(checkpoint).expanduser(),
        )
        said = [*train.notes, *classify.left_out(read, evaluate), *first.notes]
        said += classify.copies(train, found.contents)
        return _adapted(job, second, said, steps)


def _adapted(job: Job, held_out: Part | None, notes: list[str], steps: Steps | None) -> Adapted:
    """Adapt on all rows, and on those without each fold; compare."""
    named = judge.folds_of(job.train, job.rows, job.how.folds) if job.how.folds else None
    fits = 1 + (len(named.pairs) if named else 0)
    whole = fit(job, np.arange(len(job.rows.y)), 0, shifted(steps, 0, fits))
    report = _report(job, whole, notes)
    if named is not None:
        compared = compare.on_folds(job, named, lambda i: shifted(steps, i, fits))
        report = dataclasses.replace(report, folds=compared)
    encoder = whole.encoder
    train = job.train
    groups = None if train.groups is None else len(set(train.groups))
    encoder.spec = save.spec_of(job.encoder.spec, job.how.how, len(train), groups, train.classes)
    seen.remember(encoder, [*seen.seen_by(job.encoder), *job.contents])
    head = Classifier(
        "linear",
        train.classes,
        cast("Model", whole.head),
        EncoderRecord.of(encoder, "embedding", job.record.image_mpp),
        {"trained": "along with the encoder"} if whole.c is None else {"c": whole.c},
        temperature=whole.temperature(job.rows),
        _encoder=encoder,
    )
    on_train = report.folds or report.stopping
    head.report = None if on_train is None else on_train.adapted
    if held_out is not None:
        compared = compare.on_held_out(job, head, held_out)
        report = dataclasses.replace(report, held_out=compared)
        head.held_out = compared.adapted
    return Adapted(encoder, head, report, job.encoder.spec, whole.adapter, job.checkpoint)


def _report(job: Job, whole: Fitted, notes: list[str]) -> AdaptationReport:
    train, how, said = job.train, job.how, list(notes)
    best = best_of(whole.epochs)
    if not len(whole.stop):
        said.append(
            "no fold by group was possible (a class occurs in one group alone): all epochs were"
            " run, and nothing says whether they helped"
        )
    elif best == 0:
        said.append(
            "no epoch lowered the loss on the groups that end the training: the weights are those"
            " of the parent. A lower rate or more images may help"
        )
    own = {"lora": ("rank",), "last": ("stages", "layer_decay"), "all": ("layer_decay",)}
    shown = ("how", *own[how.how], "epochs", "batch", "head_rate", "weight_decay", "seed")
    settings: dict[str, Any] = {name: getattr(how, name) for name in shown}
    if how.how == "last" and how.stages is None:
        settings["stages"] = "last third"
    return AdaptationReport(
        encoder=job.record.label(),
        settings={**settings, "rate": how.highest_rate},
        images=len(train),
        groups=None if train.groups is None else len(set(train.groups)),
        trained=whole.counts[0],
        parameters=whole.counts[1],
        epochs=whole.epochs,
        best=best,
        stopping=compare.on_stopping(job, whole),
        notes=tuple(said),
    )


@contextlib.contextmanager
def _shown(
    progress: Progress | Callable[[int, int], None],
) -> Iterator[tuple[Steps | None, Progress]]:
    """What counts the steps, and how the embedding shows its progress."""
    if callable(progress):
        yield progress, False
        return
    if not isinstance(progress, bool) and progress != "auto":
        raise ConfigError(f"progress={progress!r}: 'auto', True, False or a function")
    from tqdm import tqdm

    bars: list[Any] = []

    def show(done: int, most: int) -> None:
        if not bars:  # not before the embedding's bar has ended
            hidden = None if progress == "auto" else not progress
            bars.append(tqdm(total=most, initial=done, unit="step", disable=hidden))
        bars[0].update(done - bars[0].n)

    try:
        yield show, progress
    finally:
        for bar in bars:
            bar.close()
