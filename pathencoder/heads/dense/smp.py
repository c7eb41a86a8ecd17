"""Decoders of segmentation-models-pytorch (MIT) on an encoder's pyramid, for comparison.

They take the place of the feature pyramid in `decoder.py`; the branch of the image at full
resolution stays. The package is not a dependency: `pip install segmentation-models-pytorch`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathencoder import compat
from pathencoder.errors import ConfigError, MissingExtra
from pathencoder.heads.dense.decoder import DecoderShape, block, resized

OURS = "fpn"  # the decoder of decoder.py
_STRIDES = (2, 4, 8, 16, 32)
_DEPTH = len(_STRIDES)
_WIDTHS = (256, 128, 64, 32, 16)  # the package's default


@dataclass(frozen=True)
class _Kind:
    """A class of the package, its arguments beside the encoder's channels, its output channels."""

    module: str
    name: str
    arguments: dict[str, Any]
    width: int


_BLOCKS = {"decoder_channels": _WIDTHS, "n_blocks": _DEPTH}
_KINDS = {
    "unet": _Kind("unet", "UnetDecoder", _BLOCKS, _WIDTHS[-1]),
    "unetplusplus": _Kind("unetplusplus", "UnetPlusPlusDecoder", _BLOCKS, _WIDTHS[-1]),
    "manet": _Kind("manet", "MAnetDecoder", _BLOCKS, _WIDTHS[-1]),
    "linknet": _Kind("linknet", "LinknetDecoder", {"n_blocks": _DEPTH}, 32),
    # without its dropout, which would draw random numbers that no checkpoint holds
    "fpn-smp": _Kind("fpn", "FPNDecoder", {"encoder_depth": _DEPTH, "dropout": 0.0}, 128),
    "segformer": _Kind("segformer", "SegformerDecoder", {"encoder_depth": _DEPTH}, 256),
}
DECODERS = (OURS, *_KINDS)


class SmpDecoder(nn.Module):
    """A decoder of the package and the image to `outputs` channels; called as `Decoder`.

    Args:
        name: One of `DECODERS` but the first.
        shape: Its sizes; `width` does not count.

    Raises:
        ConfigError: The encoder's maps do not have strides 2 (or 4) to 32, each twice the last.
        MissingExtra: The package is not installed.
    """

    def __init__(self, name: str, shape: DecoderShape) -> None:
        super().__init__()
        if shape.strides not in (_STRIDES, _STRIDES[1:]):
            strides = ", ".join(map(str, shape.strides))
            raise ConfigError(
                f"decoder={name!r} needs maps of strides 4, 8, 16 and 32, as CNNs have them; those"
                f" of this encoder have {strides}: leave decoder= out"
            )
        self.shape = shape
        # an encoder without a map at stride 2 has one of no channels there
        channels = [3 + shape.extra, *[0] * (_DEPTH - len(shape.strides)), *shape.channels]
        kind = _KINDS[name]
        self.pyramid = _class_of(kind, name)(channels, **kind.arguments)
        thin = shape.image_width
        first = nn.Conv2d(3 + shape.extra, thin, 3, shape.stride, 1, bias=False)
        self.image = nn.Sequential(first, nn.BatchNorm2d(thin), nn.ReLU(inplace=True))
        self.detail = block(thin, thin)
        self.narrow = nn.Conv2d(kind.width, thin, 1)
        self.join = block(2 * thin, thin)
        self.last = nn.Conv2d(thin, shape.outputs, 1)

    def forward(self, maps: Sequence[Tensor], image: Tensor) -> Tensor:
        """Logits [N, outputs, H / stride, W / stride]; see `Decoder.forward`."""
        height, width = image.shape[-2:]
        given = list(maps)
        if len(given) < _DEPTH:
            given.insert(0, image.new_zeros(len(image), 0, height // 2, width // 2))
        top = self.narrow(self.pyramid([image, *given]))
        size = [height // self.shape.stride, width // self.shape.stride]
        joined = torch.cat([resized(top, size), self.detail(self.image(image))], 1)
        result: Tensor = self.last(self.join(joined))
        return result


def _class_of(kind: _Kind, name: str) -> Any:
    compat.import_timm()  # the package imports torchvision
    try:
        found = importlib.import_module(
            f"segmentation_models_pytorch.decoders.{kind.module}.decoder"
        )
    except ImportError as error:
        raise MissingExtra(
            f"decoder={name!r} needs an optional dependency: pip install"
            " segmentation-models-pytorch"
        ) from error
    return getattr(found, kind.name)
