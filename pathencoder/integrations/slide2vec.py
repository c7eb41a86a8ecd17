"""Encoders in slide2vec.

slide2vec finds `register` by the entry point `slide2vec.encoders`. Where both packages are
installed, the bundled encoders are presets:

    from slide2vec import Model

    Model.from_preset("pathencoder-tiny").embed_slide("slide.svs")

`register("phikon", ...)` adds others by the names of `list_encoders()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pathencoder import compat
from pathencoder.integrations.common import missing, named
from pathencoder.pretrained import catalogue
from pathencoder.spec import EncoderSpec

if TYPE_CHECKING:
    from pathencoder.encoder import Encoder

compat.import_timm()  # slide2vec imports torchvision, which may not fit torch
try:
    from slide2vec.encoders.base import TileEncoder, resolve_requested_output_variant
    from slide2vec.encoders.registry import register_encoder
except ImportError as error:
    raise missing("slide2vec", "slide2vec") from error


class EncoderModel(TileEncoder):  # type: ignore[misc]
    """A tile encoder of slide2vec.

    Args:
        encoder: The encoder.
        output_variant: "default" or None; there is no other.
    """

    def __init__(self, encoder: Encoder, *, output_variant: str | None = None) -> None:
        resolve_requested_output_variant(output_variant)
        self.encoder = encoder
        self._module = encoder.as_module()

    @property
    def encode_dim(self) -> int:
        """Length of the embedding."""
        return self._module.num_features

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.encoder.device

    def to(self, device: torch.device | str) -> EncoderModel:
        """Move the weights to a device."""
        self._module.to(device)
        return self

    def get_transform(self) -> Callable[[Any], Tensor]:
        """The preprocessing of the encoder's authors, which slide2vec uses for given images."""
        return self.encoder.transform

    def get_normalization_transform(self) -> Callable[[Any], Tensor]:
        """Normalisation alone, which slide2vec uses for the tiles of a slide.

        It is made of torchvision's steps: slide2vec records these and runs them on whole batches.
        """
        from torchvision.transforms import v2

        spec = self.encoder.spec
        steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        found: Callable[[Any], Tensor] = v2.Compose([*steps, v2.Normalize(spec.mean, spec.std)])
        return found

    def encode_tiles(self, batch: Tensor) -> Tensor:
        """Embeddings [N, D] of normalised images [N, 3, H, W]."""
        rows: Tensor = self._module(batch)
        return rows


def register(*names: str) -> None:
    """Make encoders presets of slide2vec.

    Args:
        *names: Names of `list_encoders()`. Without any: the bundled encoders.

    Raises:
        UnknownEncoder: Nothing has that name.
    """
    for name in names or catalogue.bundled():
        _register(named(name))


def _register(spec: EncoderSpec) -> None:
    class Preset(EncoderModel):
        def __init__(self, *, output_variant: str | None = None) -> None:
            from pathencoder.encoder import load_encoder

            super().__init__(load_encoder(spec.name), output_variant=output_variant)

    register_encoder(
        spec.name,
        encode_dim=spec.dim,
        input_size=spec.input_size,
        # transformers take multiples of their patch size only
        supports_variable_input_size=spec.prefix_tokens == 0,
        supported_spacing_um=spec.mpp,
        default_spacing_um=spec.reading_mpp or 0.5,
        precision="fp32",
        source=spec.repo or "pathencoder",
    )(Preset)
