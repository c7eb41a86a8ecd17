"""Encoders as models of LazySlide, and our tiles and features in its data (wsidata).

import lazyslide as zs
from wsidata import open_wsi
from pathencoder.integrations.lazyslide import EncoderModel, register

wsi = open_wsi("slide.svs")
zs.pp.find_tissues(wsi)
zs.pp.tile_tissues(wsi, 224, mpp=0.5)  # the encoder's input size and scale
zs.tl.feature_extraction(wsi, EncoderModel(encoder))

register()  # the bundled encoders, by name
zs.tl.feature_extraction(wsi, "pathencoder-tiny")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pathencoder import compat
from pathencoder.features.encode import as_encoder
from pathencoder.integrations.common import missing, named
from pathencoder.pretrained import catalogue
from pathencoder.transforms import Transform

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

compat.import_timm()  # LazySlide imports torchvision, which may not fit torch
try:
    import lazyslide_models
    from lazyslide_models.base import ModelBase
except ImportError as error:
    raise missing("lazyslide", "lazyslide") from error


class EncoderModel(ModelBase):  # type: ignore[misc]
    """An encoder as LazySlide's `feature_extraction(wsi, model=...)` takes it.

    Args:
        encoder: An `Encoder`, or a name for `load_encoder`. None: the default encoder.
        output: As for `Encoder.encode`, but for "dense".

    Raises:
        PathEncoderError: The encoder cannot be loaded, or does not have the output.
    """

    def __init__(
        self, encoder: Encoder | str | os.PathLike[str] | None = None, *, output: str = "embedding"
    ) -> None:
        found = as_encoder(encoder)
        self.model = found.as_module(output=output)
        self._name = found.spec.name
        self._transform = found.transform

    @property
    def name(self) -> str:
        """The encoder's name, after which LazySlide names the features."""
        return self._name

    def get_transform(self) -> Transform:
        """The encoder's preprocessing of one image."""
        return self._transform

    def encode_image(self, image: Tensor) -> Tensor:
        """Embeddings [N, D] of normalised images [N, 3, H, W]."""
        rows: Tensor = self.model(image)
        return rows


def register(*names: str) -> None:
    """Make encoders known to LazySlide by name.

    Args:
        *names: Names of `list_encoders()`. Without any: the bundled encoders.

    Raises:
        UnknownEncoder: Nothing has that name.
    """
    for name in names or catalogue.bundled():
        if name not in lazyslide_models.MODEL_REGISTRY:
            _register(name)


def _register(name: str) -> None:
    spec = named(name)

    class Named(EncoderModel):
        def __init__(
            self, model_path: str | None = None, token: str | None = None, **_: Any
        ) -> None:
            from pathencoder.encoder import load_encoder

            super().__init__(load_encoder(model_path or name, token=token))

    Named.__name__ = Named.__qualname__ = name
    Named.__doc__ = spec.summary
    lazyslide_models.register(
        key=name,
        task=lazyslide_models.ModelTask.vision,
        is_gated=spec.gate is not None,
        license=spec.licence,
        description=spec.summary,
        commercial=spec.commercial,
        param_size=spec.parameters,
        encode_dim=spec.dim,
    )(Named)
