"""`pathencoder.fit` and `pathencoder.load_head`: the entries of every family of heads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, overload

from pathencoder.errors import ConfigError
from pathencoder.features.encode import as_encoder
from pathencoder.heads import kinds, store
from pathencoder.heads.data.read import Data, Groups, Labels
from pathencoder.heads.request import (
    AnyData,
    AnyLabels,
    ClassifierArguments,
    ClassWeight,
    DenseArguments,
    FitProgress,
    OnBad,
    Request,
    SlideArguments,
)

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.heads.classifier import Classifier
    from pathencoder.heads.dense.head import DenseHead
    from pathencoder.heads.slide.head import SlideHead
    from pathencoder.heads.slide.survival import SurvivalHead

    Head: TypeAlias = "Classifier | DenseHead | SlideHead | SurvivalHead"

Source: TypeAlias = "Encoder | str | os.PathLike[str] | None"


@overload
def fit(
    head: Literal["linear", "mlp", "knn", "prototypes"],
    encoder: Source,
    data: Data,
    **arguments: Unpack[ClassifierArguments],
) -> Classifier: ...


@overload
def fit(
    head: Literal["glands", "nuclei", "points", "pixels"],
    encoder: Source,
    data: AnyData,
    **arguments: Unpack[DenseArguments],
) -> DenseHead: ...


@overload
def fit(
    head: Literal["abmil", "slide-mean", "slide-max"],
    encoder: Source,
    data: str | os.PathLike[str],
    **arguments: Unpack[SlideArguments],
) -> SlideHead: ...


@overload
def fit(head: str, encoder: Source, data: AnyData, **arguments: Any) -> Head: ...


def fit(
    head: str,
    encoder: Source,
    data: AnyData,
    *,
    labels: AnyLabels = None,
    groups: Groups = None,
    splits: Labels = None,
    mpp: float | None = None,
    output: str = "embedding",
    views: int = 1,
    evaluate: str | None = None,
    class_weight: ClassWeight = "balanced",
    calibrate: bool = True,
    max_error: float | None = None,
    on_error: OnBad = "raise",
    seed: int = 0,
    cache: bool = True,
    progress: FitProgress = "auto",
    **options: Any,
) -> Head:
    """Fit a head on an encoder, and evaluate it.

        head = pathencoder.fit("linear", encoder, "tiles.csv")  # the class of each image
        head = pathencoder.fit("nuclei", encoder, "pictures/", mpp=0.25)  # objects in each image
        print(head.report.text())
        found = head.predict("new_tiles/")
        head.save("my_head")

    The data set is checked as a whole before anything is computed. Held-out parts are read only
    where `evaluate` names one.

    Classifiers ("linear", "mlp", "knn", "prototypes") take the frozen embedding of each image.
    Embeddings are kept on disk (`pathencoder cache` shows and clears them): a second fit on the
    same images encodes nothing. Settings are chosen, the report is made, the temperature and the
    abstention threshold are set by folds inside the train part, which keep a group together; in
    the report the settings are chosen again inside each fold.

    Dense heads ("glands", "nuclei", "points", "pixels") are networks on the encoder's maps and the
    image at full resolution. The encoder is trained along, in a copy that the head keeps, unless
    `frozen=True`. Folds cost a fit each, so the report has scores only where `folds` or `evaluate`
    asks for them.

    Heads of slides ("abmil", "slide-mean", "slide-max") take a table of slides and the folder of
    their feature files, `features=`, and need no encoder. They are evaluated as classifiers are.

    Args:
        head: The kind. "linear": logistic regression. "mlp": one hidden layer. "knn": nearest
            neighbours. "prototypes": class means, for a few images a class. "glands": large
            objects. "nuclei": small objects that touch. "points": centres of cells. "pixels": a
            class for each pixel. "abmil": attention over the tiles of a slide. "slide-mean",
            "slide-max": their mean, their largest values.
        encoder: An `Encoder`, or a name, folder or repository for `load_encoder`. None: the default
            encoder; for a head of slides, the one that the feature files state.
        data: For a classifier a folder per class, a table (CSV), a list of images with `labels`, or
            a `Dataset`. For a dense head images with label maps, points or outlines beside them:
            see `pathencoder.heads.data.pictures.read_pictures`. For a head of slides a table (CSV)
            with the columns slide, label and, optionally, patient and split.
        labels: For a list: the class of each image. For a table: the name of the column. Of a dense
            head also names of classes by their stored number or name; None is not learned.
        groups: The patient, slide or case of each image; see `read_dataset`. Where none are known,
            the report says so and claims no interval.
        splits: For a list: the part of each image, "train" or "test" for example. For a table: the
            name of the column.
        mpp: Micrometres per pixel of the images, which are resampled: by a classifier to the
            encoder's, by a dense head to that of its task. None: a classifier resizes each image
            whole, a dense head takes the scale that the data state.
        output: Of a classifier: which numbers of the encoder, as for `Encoder.encode`.
        views: Views of each image that are averaged: 1, 4 (its quarter turns) or 8 (those of its
            mirror image too). A classifier averages rows, as `Encoder.encode`, and is fitted on
            them; a dense head averages its maps when it predicts.
        evaluate: The held-out part to evaluate on once the head is fitted, for example "test". Its
            classes and images are checked before.
        class_weight: Of a classifier: "balanced" weighs classes equally; None weighs images
            equally; or a weight by class. Probabilities are those of classes weighed in this way.
        calibrate: Of a classifier: whether to scale the probabilities by a temperature.
        max_error: Of a classifier: the share of wrong labels that is accepted: below the
            probability at which the folds reach it the head abstains. None: it never abstains.
        on_error: Of a classifier: "raise" stops where images cannot be read, and lists them all;
            "skip" leaves them out and notes it.
        seed: Of folds and random numbers.
        cache: Of a classifier: keep the embeddings on disk.
        progress: As for `Encoder.encode`; for a dense head also a function that is called with the
            steps that are done and their number.
        **options: Of the kind of head. Of classifiers, what is not given is chosen by folds.
            "linear": `c`, the inverse strength of the penalty. "mlp": `hidden`, `dropout`,
            `learning_rate`, `epochs`. "knn": `k`. "prototypes": `shots`, images of each class that
            are used. Of dense heads: see `pathencoder.heads.dense.options.DenseOptions`. Of heads
            of slides: see `pathencoder.heads.slide.options.SlideOptions`.

    Returns:
        The fitted head, with its report: a `Classifier`, a `DenseHead`, a `SlideHead` or, for
        survival, a `SurvivalHead`.

    Raises:
        ConfigError: The data set has bad rows, which the message lists; or a setting does not fit.
        ImageError: Images cannot be read.
        MissingExtra: scikit-learn is not installed.
        PathEncoderError: The encoder cannot be loaded; see `load_encoder`.
    """
    asked = Request(
        kind=head,
        encoder=encoder,
        data=data,
        labels=labels,
        groups=groups,
        splits=splits,
        mpp=mpp,
        output=output,
        views=views,
        evaluate=evaluate,
        class_weight=class_weight,
        calibrate=calibrate,
        max_error=max_error,
        on_error=on_error,
        seed=seed,
        cache=cache,
        progress=progress,
        options=options,
    )
    fitted: Head = kinds.family_module(head).fit(asked)
    return fitted


def load_head(
    path_or_repo: str | os.PathLike[str],
    *,
    encoder: Encoder | str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool | None = None,
    device: str = "auto",
) -> Head:
    """Load a head that `save` or `push_to_hub` wrote. It predicts exactly the same numbers.

    Args:
        path_or_repo: A folder, or "owner/repo" on the Hub, optionally with "@revision".
        encoder: The encoder that it was fitted on: an `Encoder`, or a name for `load_encoder`.
            None: loaded by its name, repository or folder when the head first needs it. A dense
            head whose encoder was trained along needs it for classes of cells alone.
        revision: A branch, tag or commit of the repository.
        token: As in huggingface_hub, as are the next two.
        cache_dir: The cache of downloads.
        local_files_only: True: do not use the network.
        device: For the encoder: "auto" takes cuda, then mps, then cpu.

    Returns:
        The head, as it was saved.

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
    try:
        loaded: Head = kinds.family_module(files.config["head"]).load(files, device)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the head {path_or_repo} is incomplete or was changed ({type(error).__name__}:"
            f" {error}): save or download it again"
        ) from error
    if encoder is not None:
        loaded.use(as_encoder(encoder))
    return loaded
