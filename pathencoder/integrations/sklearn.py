"""An encoder as a transformer of scikit-learn.

    from pathencoder.integrations.sklearn import EncoderTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    embed = EncoderTransformer("pathencoder-tiny")
    model = make_pipeline(embed, LogisticRegression(max_iter=1000), memory="cache")
    model.fit(["a.png", "b.png"], [0, 1])

With `memory`, cross-validation embeds the images of each fold once. Rows are kept by the weights,
the encoder's description and what X holds: of a path, its name. An image that takes the place of
another is not noticed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pathencoder.errors import ConfigError, ImageError, MissingExtra, PathEncoderError
from pathencoder.features.encode import as_encoder
from pathencoder.pretrained import catalogue, folder, locate

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder
    from pathencoder.runtime import BatchSize, Rows
    from pathencoder.stream import OnError, Progress

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtra.of("heads", "pathencoder.integrations.sklearn") from error


class EncoderTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to embeddings, as the first step of a pipeline.

    X is a list, array, pandas Series or one column of a DataFrame with an image each: paths, PIL
    images or arrays; or an array [N, H, W, 3]. `fit` loads the encoder and does not look at X:
    nothing is learnt, so nothing can leak from a test set. Clones share an `Encoder` that is given
    as an object.

    Args:
        encoder: An `Encoder`, or a name for `load_encoder`. None: the default encoder.
        output: As for `Encoder.encode`, but for "dense".
        views: As for `Encoder.encode`.
        mpp: Micrometres per pixel of all images, as for `Encoder.encode`.
        precision: As for `Encoder.encode`.
        batch_size: As for `Encoder.encode`.
        workers: As for `Encoder.encode`.
        on_error: "raise", or "nan": the row of a bad image is NaN, which imputers take.
        progress: As for `Encoder.encode`.

    Attributes:
        encoder_: The loaded encoder.
    """

    def __init__(
        self,
        encoder: Encoder | str | os.PathLike[str] | None = None,
        *,
        output: str = "embedding",
        views: int = 1,
        mpp: float | None = None,
        precision: str = "auto",
        batch_size: BatchSize = "auto",
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: Progress = False,
    ) -> None:
        self.encoder = encoder
        self.output = output
        self.views = views
        self.mpp = mpp
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers
        self.on_error = on_error
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> EncoderTransformer:
        """Load the encoder.

        Args:
            X: Images; only their form is checked.
            y: Not used.

        Returns:
            The transformer.

        Raises:
            ImageError: X is not a list of images.
            PathEncoderError: The encoder cannot be loaded, or does not have the output.
        """
        _images(X)
        if self.output in ("dense", "tokens"):
            raise ConfigError(f"output={self.output!r}: scikit-learn takes one vector per image")
        self.encoder_ = as_encoder(self.encoder)
        self._length = self.encoder_.as_module(output=self.output).num_features
        return self

    def transform(self, X: Any) -> Rows:
        """Embed images.

        Args:
            X: Images.

        Returns:
            float32 [N, D]; with `set_output` a DataFrame.

        Raises:
            ImageError: An image cannot be read, or X is not a list of images.
            ConfigError: A setting does not fit.
        """
        check_is_fitted(self)
        images = _images(X)
        rows: Rows = self.encoder_.encode(
            images,
            mpp=self.mpp,
            output=self.output,
            views=self.views,
            precision=self.precision,
            batch_size=self.batch_size,
            workers=self.workers,
            on_error=self.on_error,
            progress=self.progress,
        )
        if len(rows) != len(images):
            raise ImageError(
                f"{len(images)} elements hold {len(rows)} images: each element must be one image,"
                " not a folder or a list"
            )
        return rows

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """ENCODER_0, ENCODER_1, ... for each element of the embedding.

        Args:
            input_features: Not used.
        """
        check_is_fitted(self)
        name = self.encoder_.spec.name
        return np.asarray([f"{name}_{i}" for i in range(self._length)], dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        """The state, with the weights and the description that a name stands for.

        joblib hashes it: rows that `memory` keeps are not those of other weights of that name, nor
        of another readout or preprocessing.
        """
        return {**super().__getstate__(), "_weights": _weights_of(self.encoder)}

    def __sklearn_clone__(self) -> EncoderTransformer:
        same = type(self)(**self.get_params(deep=False))
        if hasattr(self, "_sklearn_output_config"):  # of set_output
            same._sklearn_output_config = copy.deepcopy(self._sklearn_output_config)
        return same

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _weights_of(encoder: object) -> str | None:
    """What a name stands for; None of an `Encoder`, and where it is not known."""
    if encoder is not None and not isinstance(encoder, str | os.PathLike):
        return None
    name = catalogue.DEFAULT if encoder is None else encoder
    try:
        spec = locate.describe(name)
        if spec.sha256 is None and spec.revision is None:  # a folder that states no checksum
            return f"{spec!r} {folder.sha256_of(locate.locate(name).weights)}"
    except (PathEncoderError, OSError):  # `fit` raises it
        return None
    return repr(spec)


def _images(X: Any) -> Sequence[Any]:
    """X as a sequence of images. Raises ImageError where that is not what it is."""
    if hasattr(X, "to_numpy"):  # pandas and polars
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUS":
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        X = X.tolist() if X.ndim == 1 else X
    if isinstance(X, list | tuple):
        return X
    if getattr(X, "ndim", 0) == 4:  # array or tensor [N, H, W, 3]
        images: Sequence[Any] = X
        return images
    shape = f" {list(X.shape)}" if hasattr(X, "shape") else ""
    raise ImageError(
        f"X is a {type(X).__name__}{shape}: give a list with an image each (paths, PIL images or"
        " arrays), one column of them, or an array [N, H, W, 3]"
    )
