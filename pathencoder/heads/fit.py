"""`pathencoder.fit` and `pathencoder.load_head`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import classify, kinds, store
from pathencoder.heads.calibration import check_max_error
from pathencoder.heads.classifier import Classifier, part_of
from pathencoder.heads.data.check import train_part
from pathencoder.heads.data.read import Data, Groups, Labels, read_dataset
from pathencoder.heads.encoder_record import EncoderRecord
from pathencoder.heads.folds import require_sklearn
from pathencoder.heads.report import Report
from pathencoder.mpp import check_mpp
from pathencoder.stream import Progress

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder


def fit(
    head: str,
    encoder: Encoder | str | os.PathLike[str] | None,
    data: Data,
    *,
    labels: Labels = None,
    groups: Groups = None,
    splits: Labels = None,
    mpp: float | None = None,
    output: str = "embedding",
    evaluate: str | None = None,
    class_weight: Mapping[str, float] | Literal["balanced"] | None = "balanced",
    calibrate: bool = True,
    max_error: float | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    seed: int = 0,
    cache: bool = True,
    progress: Progress = "auto",
    **options: Any,
) -> Classifier:
    """Fit a head on the frozen embeddings of an encoder, and evaluate it on folds by group.

        head = pathencoder.fit("linear", encoder, "tiles.csv")
        print(head.report.text())
        found = head.predict("new_tiles/")
        head.save("my_head")

    The data set is checked as a whole before anything is encoded. Embeddings are kept on disk
    (`pathencoder cache` shows and clears them): a second fit on the same images encodes nothing.
    Settings are chosen, the report is made, the temperature and the abstention threshold are set by
    folds inside the train part, which keep a group together; in the report the settings are chosen
    again inside each fold. Held-out parts are read only where `evaluate` names one.

    Args:
        head: "linear" (logistic regression), "mlp" (one hidden layer), "knn" (nearest neighbours)
            or "prototypes" (class means, for a few images a class).
        encoder: An `Encoder`, or a name, folder or repository for `load_encoder`. None: the default
            encoder.
        data: A folder per class, a table (CSV), a list of images with `labels`, or a `Dataset`.
        labels: For a list: the class of each image. For a table: the name of the column.
        groups: The patient, slide or case of each image; see `read_dataset`. Where none are known,
            the report says so and claims no interval.
        splits: For a list: the part of each image, "train" or "test" for example. For a table: the
            name of the column.
        mpp: Micrometres per pixel of the images, which are resampled to the encoder's. None: each
            image is resized whole.
        output: Which numbers of the encoder, as for `Encoder.encode`.
        evaluate: The held-out part to evaluate on once the head is fitted, for example "test".
        class_weight: "balanced" weighs classes equally; None weighs images equally; or a weight by
            class. Probabilities are those of classes weighed in this way.
        calibrate: Whether to scale the probabilities by a temperature.
        max_error: The share of wrong labels that is accepted: below the probability at which the
            folds reach it the head abstains. None: it never abstains.
        on_error: "raise" stops where images cannot be read, and lists them all; "skip" leaves them
            out and notes it.
        seed: Of folds and random numbers.
        cache: Keep the embeddings on disk.
        progress: As for `Encoder.encode`.
        **options: Of the kind of head; what is not given is chosen by folds. "linear": `c`, the
            inverse strength of the penalty. "mlp": `hidden`, `dropout`, `learning_rate`, `epochs`.
            "knn": `k`. "prototypes": `shots`, images of each class that are used.

    Returns:
        The fitted head, with its report.

    Raises:
        ConfigError: The data set has bad rows, which the message lists; or a setting does not fit.
        ImageError: Images cannot be read.
        MissingExtra: scikit-learn is not installed.
        PathEncoderError: The encoder cannot be loaded; see `load_encoder`.
    """
    require_sklearn()
    made_of = kinds.options_of(head, options)
    check_max_error(max_error)
    scale = None if mpp is None else check_mpp(mpp)
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error={on_error!r}: 'raise' or 'skip'")
    if output == "dense":
        raise ConfigError("output='dense': a classifier takes one vector per image")
    read = read_dataset(data, labels=labels, groups=groups, splits=splits)
    train = train_part(read)
    weights = classify.class_weights(class_weight, train.classes)
    held_out = None if evaluate is None else part_of(read, evaluate)
    network = as_encoder(encoder)
    fitting = classify.Fitting(
        kind=head,
        options=made_of,
        class_weights=weights,
        calibrate=calibrate,
        max_error=max_error,
        skip_bad=on_error == "skip",
        seed=seed,
        cache=cache,
        progress=progress,
    )
    record = EncoderRecord.of(network, output, scale)
    return classify.fit(
        network, record, train, held_out, fitting, left=classify.left_out(read, evaluate)
    )


def load_head(
    path_or_repo: str | os.PathLike[str],
    *,
    encoder: Encoder | str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
) -> Classifier:
    """Load a head that `save` or `push_to_hub` wrote. It predicts exactly the same numbers.

    Args:
        path_or_repo: A folder, or "owner/repo" on the Hub, optionally with "@revision".
        encoder: The encoder that it was fitted on: an `Encoder`, or a name for `load_encoder`.
            None: loaded by its name, repository or folder when the head first needs it.
        revision: A branch, tag or commit of the repository.
        token: As in huggingface_hub, as are the next two.
        cache_dir: The cache of downloads.
        local_files_only: True: do not use the network.

    Returns:
        The head.

    Raises:
        ConfigError: There is no such head, or it is incomplete or of a newer version.
        ChecksumError: Its arrays are not those that were saved.
        HeadMismatch: It was fitted on another encoder.
        PathEncoderError: A download failed.
    """
    files = store.read(
        path_or_repo,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    config = files.config
    try:
        model = kinds.kind(config["head"]).from_arrays(files.arrays, config["settings"])
        threshold = config["threshold"]
        loaded = Classifier(
            kind=config["head"],
            classes=tuple(map(str, config["classes"])),
            model=model,
            record=EncoderRecord(**config["encoder"]),
            settings=dict(config["settings"]),
            temperature=float(config["temperature"]),
            threshold=None if threshold is None else float(threshold),
            report=_report(files.report.get("folds")),
            held_out=_report(files.report.get("held_out")),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the head {path_or_repo} is incomplete ({type(error).__name__}: {error}): save or"
            " download it again"
        ) from error
    if encoder is not None:
        loaded.use(as_encoder(encoder))
    return loaded


def _report(content: dict[str, Any] | None) -> Report | None:
    return None if content is None else Report.from_json(content)
